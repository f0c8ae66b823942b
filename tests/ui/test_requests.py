"""Tests conversion between form and request, and the saved form, without a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import (
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
    TiledOptions,
)
from ui.fields import defaults
from ui.filled_form import for_number, to_form
from ui.panels.file_lists import FileLists
from ui.panels.form.whole import build_form
from ui.requests import PlaceError, build_options, with_kept_pictures
from ui.settings import SettingsFile


@pytest.fixture
def fresh(model_root: Path) -> dict[str, Any]:
    return defaults(ModelFolders(model_root))


def test_a_recalled_request_builds_the_same_request(fresh: dict[str, Any], tmp_path: Path) -> None:
    image = tmp_path / "inputs" / "x.png"
    image.parent.mkdir()
    Image.new("RGB", (8, 8)).save(image)
    options = GenerationOptions(
        prompt="a cat", negative_prompt="dog", width=512, height=768, seed=2**60, steps=33, cfg=5.5, rescale_cfg=0.7,
        sampler="euler", scheduler="beta", clip_skip=2, emphasis="a1111", checkpoint="x", vae="y", prediction="v",
        number=3, batch=2, text_encoders=("z", "g"), refiner="r", refiner_start=0.5,
        loras=(LoraChoice(name="a", strength=0.5), LoraChoice(name="b", strength=-1.0, text_strength=0.0)),
        stable_fast="graph", stable_fast_precision="fp16-accumulate", stable_fast_skip=1,
        hires=HiresOptions(
            width=640, height=960, steps=7, denoise=0.3, method="bislerp", cfg=3.0, sampler="heun", scheduler="simple"
        ),
        controls=(
            ControlChoice(
                name="c", image=image, strength=0.4, end=0.7, mode="prompt", preprocessor="canny", kind="depth"
            ),
        ),
    )  # fmt: skip
    assert build_options(to_form(options, fresh), tmp_path) == options


def test_recalling_a_plain_picture_switches_everything_off(fresh: dict[str, Any]) -> None:
    assert to_form(GenerationOptions(prompt="x", scheduler="karras"), fresh) == {**fresh, "prompt": "x"}


def test_what_is_about_stable_fast_rests_while_that_is_off(fresh: dict[str, Any], tmp_path: Path) -> None:
    form = fresh | {"prompt": "x", "stable_fast_precision": "fp16-accumulate", "stable_fast_skip": 2}
    for is_on, expected in ((True, ("fp16-accumulate", 2)), (False, ("off", 0))):
        options = build_options(form | {"stable_fast": is_on}, tmp_path)
        assert (options.stable_fast_precision, options.stable_fast_skip) == expected


def test_loras_beyond_the_form_go_into_the_prompt(fresh: dict[str, Any]) -> None:
    loras = (LoraChoice(name="strong", strength=5.0), LoraChoice(name="split", strength=-3.0, text_strength=0.5))
    form = to_form(GenerationOptions(prompt="x", loras=loras), fresh)
    assert form["prompt"] == "x <lora:strong:5:5> <lora:split:-3:0.5>" and form["lora_1"] == ""


def extremes(image: Path, *, high: bool) -> GenerationOptions:
    """Returns a request at the limits, with fractions between a slider's positions."""
    return GenerationOptions(
        prompt="x", width=8192 if high else 64, height=64, seed=0, cfg=100 if high else 0, steps=1000 if high else 1,
        number=10_000 if high else 1, batch=64 if high else 1, clip_skip=12 if high else -12, scheduler="karras",
        rescale_cfg=1 if high else 0.123,
        loras=(LoraChoice(name="a", strength=2 if high else -2, text_strength=20 if high else -20),),
        controls=(ControlChoice(name="c", image=image, strength=10 if high else 0, start=0.123, end=1),),
        hires=HiresOptions(scale=4 if high else 1.337, steps=1000 if high else 0, denoise=1 if high else 0.123),
        init=InitImage(
            image=image, denoise=1 if high else 0.123, mask_blur=64 if high else 0, mask_padding=8192 if high else 0
        ),
    )  # fmt: skip


@pytest.mark.parametrize("high", [False, True])
def test_the_fields_accept_every_request(fresh: dict[str, Any], tmp_path: Path, *, high: bool) -> None:
    image = tmp_path / "inputs" / "x.png"
    image.parent.mkdir()
    Image.new("RGB", (8, 8)).save(image)
    options = extremes(image, high=high)
    form = to_form(options, fresh)
    with gr.Blocks():
        parts = build_form(FileLists(folders=ModelFolders(tmp_path)), fresh)
    numbers = {name: value for name, value in form.items() if isinstance(value, (int, float))}
    assert {name: parts[name].preprocess(value) for name, value in numbers.items()} == numbers
    assert build_options({**form, "mode": "text"}, tmp_path) == replace(options, init=None)


def test_the_mask_settings_come_back(fresh: dict[str, Any], tmp_path: Path) -> None:
    asked = InitImage(image=tmp_path / "x.png", mask_invert=True, only_masked=True, mask_padding=8, mask_blur=2)
    form = to_form(GenerationOptions(prompt="x", init=asked), fresh, [asked.image])
    form["editor"] = {"background": Image.new("RGB", (64, 64)), "layers": [Image.new("RGBA", (64, 64), "red")]}
    built = build_options(form, tmp_path).init
    assert built is not None and built.mask is not None
    assert replace(built, image=asked.image, mask=None) == asked


def test_outpainting_and_a_grey_mask_come_back(fresh: dict[str, Any], tmp_path: Path) -> None:
    """A mask comes back as a file, so its grey levels stay; the form's size follows the extended picture."""
    Image.new("L", (64, 72), 90).save(tmp_path / "grey.png")
    Image.new("RGB", (64, 72)).save(tmp_path / "x.png")
    drawing = {"background": Image.new("RGB", (64, 72)), "layers": []}
    masked = InitImage(image=tmp_path / "x.png", mask=tmp_path / "grey.png", mask_soft=True, each_part=True)
    built = build_options({**to_form(GenerationOptions(prompt="x", init=masked), fresh), "editor": drawing}, tmp_path)
    assert built.init is not None and built.init.mask is not None and built.init.mask_soft and built.init.each_part
    assert Image.open(built.init.mask).getextrema() == (90, 90)
    wider = InitImage(image=tmp_path / "x.png", outpaint=(8, 0, 16, 0), outpaint_seam=5)
    form = {**to_form(GenerationOptions(prompt="x", init=wider), fresh), "editor": drawing, "keep_size": True}
    built = build_options(form, tmp_path)
    assert (built.width, built.height) == (88, 72)
    assert built.init is not None and replace(built.init, image=wider.image) == wider
    with pytest.raises(OptionsError, match="mask of its own"):
        build_options({**form, "mask_file": str(tmp_path / "grey.png")}, tmp_path)


def test_a_tiled_upscale_comes_back(fresh: dict[str, Any], tmp_path: Path) -> None:
    tiled = TiledOptions(scale=1.337, method="sharp", overlap=24)
    asked = GenerationOptions(prompt="x", width=64, height=128, init=InitImage(image=tmp_path / "x.png"), tiled=tiled)
    form = to_form(asked, fresh, [tmp_path / "x.png"])
    form["editor"] = {"background": Image.new("RGB", (80, 64)), "layers": []}
    built = build_options(form, tmp_path)
    assert (built.tiled, built.width, built.height) == (tiled, 64, 128)
    assert build_options({**form, "tile_width": None, "tile_height": None}, tmp_path).width is None  # the native size
    assert build_options({**form, "mode": "text"}, tmp_path).tiled is None
    with pytest.raises(PlaceError, match="clear what is painted") as raised:
        painted = {"background": Image.new("RGB", (80, 64)), "layers": [Image.new("RGBA", (80, 64), "red")]}
        build_options({**form, "editor": painted}, tmp_path)
    assert raised.value.place == "init_message"


def test_a_member_of_a_batch_is_asked_for_by_its_own_seed() -> None:
    alone = for_number(GenerationOptions(prompt="x", seed=10, batch=4, only=2))
    assert (alone.seed, alone.batch, alone.only) == (12, 1, None)


def test_an_empty_prompt_and_minus_one_for_the_seed_are_taken(fresh: dict[str, Any], tmp_path: Path) -> None:
    options = build_options({**fresh, "prompt": "", "seed": "-1"}, tmp_path)
    assert (options.prompt, options.seed) == ("", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": "1.5"}, "not a whole number"),
        ({"width": 99.5}, "whole number"),
        ({"control_1": "net"}, "has no picture"),
        ({"mode": "image"}, "needs a picture"),
    ],
)
def test_refusals(fresh: dict[str, Any], tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        build_options({**fresh, "prompt": "x", **change}, tmp_path)


def test_settings_survive_and_damage_is_ignored_field_by_field(fresh: dict[str, Any], tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "settings.json", tmp_path / "output")
    file.save({**fresh, "prompt": "a cat", "mode": "image", "cfg": 4})
    assert file.load(fresh) == {**fresh, "prompt": "a cat", "cfg": 4}
    file.path.write_text(json.dumps({"prompt": 7, "steps": "many", "cfg": 5, "stable_fast": 1, "unknown": 2}))
    assert file.load(fresh) == {**fresh, "cfg": 5}
    file.path.write_text("{")
    assert file.load(fresh) == fresh


def test_a_control_net_is_remembered_with_its_picture_or_not_at_all(fresh: dict[str, Any], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "inside.png")
    options = GenerationOptions(prompt="x", controls=(ControlChoice(name="net", image=tmp_path / "inside.png"),))
    file = SettingsFile(tmp_path / "settings.json", tmp_path)
    used = {**fresh, "control_2": "net", "control_2_image": "/tmp/upload.png", "control_1_image": "/tmp/unused.png"}
    file.save(with_kept_pictures(used, options))
    assert file.load(fresh) == {**fresh, "control_2": "net", "control_2_image": str(tmp_path / "inside.png")}
    elsewhere = SettingsFile(file.path, tmp_path / "output")
    assert elsewhere.load(fresh) == fresh, "a picture outside the output folder is not opened"
    (tmp_path / "inside.png").unlink()
    assert file.load(fresh) == fresh


def test_styles_go_into_the_request_and_are_remembered(fresh: dict[str, Any], tmp_path: Path) -> None:
    form = {**fresh, "styles": ["ink", "photo"]}
    assert build_options(form, tmp_path).styles == ("ink", "photo")
    settings = SettingsFile(tmp_path / "settings.json", tmp_path)
    settings.save(form)
    assert settings.load(fresh)["styles"] == ["ink", "photo"]
    assert settings.read('{"styles": ["ink", 3]}', fresh)["styles"] == []
