"""Foreign input with any type in any place: every reader of JSON, TOML and values succeeds or gives one sentence."""

from __future__ import annotations

import json
import os
import random
import struct
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from modules.catalog.models import checkpoint_facts
from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.core.typed import Unreadable, build, parse_json, parse_json_object
from modules.gallery.output import LAST_SEED, OutputFolder
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.tasks.axes import VARIABLES, grid_cells, read_axis
from modules.tasks.grid import paste_grid
from modules.tasks.prompt_file import read_prompt_file
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory
from tests.ui.conftest import run_apart
from ui.api import Api, checked
from ui.events.handlers import Handlers
from ui.fields import RANGES, defaults
from ui.requests import build_options
from ui.settings import SettingsFile

ROUNDS = 2000
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 10**400, -(10**400), 1.5, float("nan"), float("inf"), 1e308),
    *("", "x", "7", "\ud800", "\0", "~nosuch/x", "a" * 5000, "<b>", "\x1b[2J", "line\nline", "http://x/y.png"),
    *([], [1], [[[[]]]], {}, {"path": 3}, {"url": "http://x"}, {"x": {"y": {}}}),
)


def answers(reader: Callable[[], object], label: object) -> None:
    try:
        reader()
    except LightDiffusionError as error:
        assert str(error).isprintable() and len(str(error)) < 1500, label
    except Unreadable:
        pass
    except Exception as error:  # noqa: BLE001  # the point of the test
        pytest.fail(f"{label!r:.300}: {type(error).__name__}: {error}")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_json_of_any_depth_and_length() -> None:
    for text in (nested(10**5), '{"a":' * 10**5, "1" * 10**5, "NaN", "[1e999]", '"\\ud800"', "\xff", "", "{" * 999):
        answers(lambda text=text: parse_json(text), text[:20])
        with pytest.raises((Unreadable, OptionsError)):
            parse_json_object(text)


@pytest.mark.parametrize("kind", [InitImage, HiresOptions, LoraChoice, ControlChoice, GenerationOptions])
def test_dataclasses_of_any_values(kind: type) -> None:
    generator = random.Random(2)
    names = [*kind.__dataclass_fields__, "unknown"]
    for _ in range(ROUNDS):
        values = {name: generator.choice(VALUES) for name in generator.sample(names, generator.randint(0, 4))}
        answers(lambda values=values: build(kind, values), values)


def test_numbers_are_not_flags_and_texts_are_not_numbers() -> None:
    for values in ({"denoise": True}, {"denoise": "0.5"}, {"mask_blur": 1.5}, {"mask_blur": 10**400}, {"resize": 3}):
        with pytest.raises(Unreadable):
            build(InitImage, {"image": "x.png", **values})


def header_file(path: Path, header: object) -> None:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data)


@pytest.fixture
def folders(model_root: Path) -> ModelFolders:
    return ModelFolders(model_root)


def test_checkpoint_headers_of_any_values(folders: ModelFolders) -> None:
    path = folders.folders("checkpoints")[0] / "a.safetensors"
    sizes = (*VALUES, 512.0, 513, 64, 8193)
    texts = [json.dumps({"native_size": value, "description": value}) for value in sizes]
    headers = [{"__metadata__": {"lightdiffusion": text}} for text in (*texts, *VALUES, nested(10**5))]
    headers += [{"__metadata__": value} for value in VALUES] + [*VALUES]
    for header in (*headers, nested(10**5).encode(), b"\xff" * 50, b""):
        header_file(path, header)
        facts = checkpoint_facts(folders, "a.safetensors")
        assert 64 <= facts.native_size <= 8192 and facts.native_size % 8 == 0
        assert facts.description.isprintable() and len(facts.description) <= 500
    path.unlink()
    os.mkfifo(path)
    assert checkpoint_facts(folders, "a.safetensors").native_size == 512


def test_a_header_that_would_take_gigabytes_is_left_alone(folders: ModelFolders) -> None:
    path = folders.folders("checkpoints")[0] / "a.safetensors"
    header_file(path, b'{"a":[' + b"[]," * 10_000_000 + b"[]]}")
    began = time.monotonic()
    assert checkpoint_facts(folders, "a.safetensors").native_size == 512
    assert time.monotonic() - began < 0.5


def test_a_name_that_is_not_text_is_reported_once_and_left_out(
    folders: ModelFolders, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folders.folders("loras")[0]
    for name in (b"\xff.safetensors", "ü 🎈.safetensors".encode()):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
    assert folders.list("loras") == folders.list("loras") == ["ü 🎈.safetensors"]
    assert len(caplog.messages) == 1 and "rename it" in caplog.messages[0]
    answers(lambda: folders.find("loras", "\udcff.safetensors"), "surrogate")


@pytest.mark.parametrize(
    "content",
    [
        "loras = " + nested(10**5),
        'loras = "~nosuch/x"',
        'loras = "a\\u0000b"',
        f'loras = "{"x" * 5000}"',
        "loras = 1",
        "loras = " + "1" * 10**5,
        "x" * 10**6,
        "#" * 10**7,
        '"a\\nb" = 1',
        "\xff",
        "loras = [[]]",
    ],
)
def test_folder_lists_of_any_content(model_root: Path, content: str) -> None:
    (model_root / "model_folders.toml").write_text(content, encoding="latin-1")
    answers(lambda: ModelFolders(model_root).list("loras"), content[:30])


def test_a_pipe_is_not_a_folder_list(model_root: Path) -> None:
    os.mkfifo(model_root / "model_folders.toml")
    with pytest.raises(OptionsError, match="regular file"):
        ModelFolders(model_root)


def test_a_whole_disk_is_not_searched(model_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.core.paths.MOST_FOLDERS", 20)
    for number in range(30):
        (model_root / "models" / "loras" / str(number)).mkdir()
    with pytest.raises(OptionsError, match="give the one"):
        ModelFolders(model_root).list("loras")


@pytest.mark.parametrize("name", [value for value in VALUES if isinstance(value, str)] + ["/" * 9000, "../../etc"])
def test_names_of_models_of_any_text(folders: ModelFolders, name: str) -> None:
    answers(lambda: folders.find("loras", name), name[:30])
    answers(lambda: folders.lasting_name("loras", name), name[:30])


def test_settings_of_any_values(folders: ModelFolders, tmp_path: Path) -> None:
    fresh, generator, path = defaults(folders), random.Random(4), tmp_path / "settings.json"
    for _ in range(ROUNDS):
        names = generator.sample([*fresh, "unknown"], generator.randint(1, 6))
        path.write_text(json.dumps({name: generator.choice(VALUES) for name in names}))
        form = SettingsFile(path, tmp_path).load(fresh)
        assert form.keys() == fresh.keys()
        json.dumps(form, allow_nan=False).encode()  # as the page is sent
        assert not any(isinstance(value, str) and "\ud800" in value for value in form.values())
        assert not any(isinstance(value, (int, float)) and abs(value) > 1e9 for value in form.values())
        assert all(low <= form[name] <= high for name, (low, high) in RANGES.items())
    for content in (nested(10**5), "[]", "3", "{", "\xff", '{"prompt": "' + "x" * 10**7 + '"}'):
        path.write_text(content, encoding="latin-1")
        assert SettingsFile(path, tmp_path).load(fresh) == fresh
    path.unlink()
    os.mkfifo(path)
    assert SettingsFile(path, tmp_path).load(fresh) == fresh


def test_api_fields_of_any_values(folders: ModelFolders, tmp_path: Path) -> None:
    fresh, generator = defaults(folders), random.Random(5)
    images = {name: None for name in fresh if name.endswith("_image")}
    for _ in range(ROUNDS):
        names = generator.sample([*fresh, "unknown"], generator.randint(1, 4))
        given = {name: generator.choice(VALUES) for name in names}
        answers(lambda given=given: build_options({**fresh, **checked(given, fresh), **images}, tmp_path), given)


@pytest.mark.parametrize("value", VALUES)
def test_api_arguments_of_any_type(folders: ModelFolders, tmp_path: Path, value: Any) -> None:
    output = OutputFolder(tmp_path / "output")
    queue = TaskQueue(lambda: pytest.fail("nothing may run"), output)
    queue.submit = lambda task: finished()
    settings = SettingsFile(tmp_path / "settings.json", tmp_path)
    api = Api(Handlers(queue, folders, output, settings))
    calls = [lambda: api.models(value), lambda: api.cancel(value)]
    for name in signature(api.text_to_image).parameters:
        given = {"prompt": "x", name: value}
        calls.append(lambda given=given: run_apart(api.text_to_image(**given)))
    for name in ("image", "mask", "denoise"):
        given = {"image": "", name: value}
        calls.append(lambda given=given: run_apart(api.image_to_image(**given)))
    for call in calls:
        try:
            call()
        except gr.Error as error:
            assert 0 < len(error.message) < 1500 and error.message.isprintable()


def finished() -> QueuedTask:
    queued = QueuedTask(task=FreeMemory())
    queued.end("done")
    return queued


@pytest.mark.parametrize("wrong", [5, [], "x", 0, False, ""])
def test_other_that_is_not_an_object_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionsError, match="not an object"):
        checked(wrong, {})


def test_what_an_uploaded_file_cannot_say_is_an_error(folders: ModelFolders, tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    queue = TaskQueue(lambda: pytest.fail("nothing may run"), output)
    api = Api(Handlers(queue, folders, output, SettingsFile(tmp_path / "settings.json", tmp_path)))
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    for image in ({"path": str(tmp_path / "x.png"), "crop": [0, 0, 8, 8]}, {"url": "http://x/y.png"}):
        with pytest.raises(gr.Error, match="not an uploaded picture"):
            run_apart(api.image_to_image(image, mask=None))


def test_labels_of_any_text_are_drawn(folders: ModelFolders) -> None:
    for text in ("a\nb,c", "x" * 9000 + ",y", "\0,\x1b"):
        axis, pictures = read_axis("negative_prompt", text), [Image.new("RGB", (64, 64))] * 2
        assert paste_grid(pictures, axis, None).width < 200
        assert paste_grid(pictures, read_axis("seed", "1"), axis).width < 400


def test_grids_of_any_values() -> None:
    generator, options = random.Random(6), GenerationOptions(prompt="a red circle")
    texts = ("1-99999999999999999999", "9" * 5000, "nan", "1-" + "9" * 5000, "²-³", ",", "|", "a|b", "1,2", "x" * 20000)
    for name in (*VARIABLES, "unknown"):
        for _ in range(60):
            text = generator.choice((*texts, *(value for value in VALUES if isinstance(value, str))))
            answers(lambda name=name, text=text: grid_cells(options, read_axis(name, text), None), (name, text[:30]))


def test_prompt_files_of_any_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    for content in ('{"prompt":' + nested(10**5) + "}", '{"seed": ' + "1" * 5000 + "}", "{", "[1]", '{"a": NaN}', "{}"):
        path.write_text(content)
        answers(lambda: [str(line.error).isprintable() for line in read_prompt_file(path)], content[:30])


def test_a_last_seed_of_any_value(tmp_path: Path) -> None:
    for value in VALUES:
        for content in (json.dumps({"seed": value}), json.dumps(value)):
            (tmp_path / LAST_SEED).write_text(content)
            answers(OutputFolder(tmp_path).last_seed, content[:30])
