"""--from-image after things have changed: another working folder, models given as paths, missing files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pipeline
from cli.requests import build_options
from modules.core import paths
from modules.core.errors import OptionsError
from modules.gallery import output
from tests import tiny, tiny_project
from tests.cli import command

Run = Callable[..., tuple[int, str, str]]
SMALL = ["a cat", "64", "64", "1", "1", "--steps", "2", "--device", "cpu", "--quiet", "--seed", "3"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a project in a folder with a space, with other models beside it and a separate working folder."""
    root = tiny_project.project(tmp_path / "my project")
    monkeypatch.setattr(paths, "PROJECT_ROOT", root)
    monkeypatch.setattr(output, "PROJECT_ROOT", root)
    elsewhere = tmp_path / "other models"
    tiny.save_checkpoint(elsewhere / "base.safetensors", seed=7)
    tiny_project.save_lora(elsewhere / "my ink.safetensors", seed=21)
    tiny_project.save_controlnet(elsewhere / "edges, mine.safetensors")
    tiny.save_checkpoint(elsewhere / "other vae.safetensors", seed=50)
    monkeypatch.chdir(elsewhere)
    return root


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = pipeline.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out.strip(), captured.err

    return call


def test_models_outside_our_folders_are_named_without_their_place(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = Path("photo.png")
    tiny_project.save_photo(photo, 128)
    code, first, told = run(
        *SMALL,
        *("--checkpoint", "base.safetensors", "--vae", "other vae.safetensors"),
        *("--lora", "my ink.safetensors:0.8:0.3", "--lora", "../my project/models/loras/clay.safetensors"),
        *("--control-net", "./edges, mine.safetensors", "--control-image", "photo.png"),
        *("--img2img", "photo.png", "--denoise", "0.6"),
    )
    assert code == 0, told
    text = Image.open(first).info["parameters"]
    assert str(tmp_path) not in text and "/" not in text.splitlines()[-1]
    code, again, told = run("--from-image", first, "--device", "cpu", "--quiet")
    assert code == 0 and told == "", told
    assert Image.open(again).tobytes() == Image.open(first).tobytes()
    assert Image.open(again).info["parameters"] == text
    (tmp_path / "third").mkdir()
    monkeypatch.chdir(tmp_path / "third")
    code, out, told = run("--from-image", first, "--device", "cpu", "--quiet")
    assert code == 2 and not out and '"photo.png" (give it with --img2img FILE)' in told and "--control-image" in told
    os.rename("../other models/photo.png", "renamed.png")  # found by its content
    code, out, told = run("--from-image", first, "--device", "cpu", "--quiet")
    assert code == 3 and not out and "base.safetensors" in told and "--checkpoint" in told and told.count("\n") == 1
    assert '"clay.safetensors' in text.replace("\\", "")  # the project's own model is recorded by name


def test_other_options_change_one_setting_of_the_pictures_extras(run: Run, home: Path) -> None:
    photo = str(home / "photo.png")
    nets = ["--control-net", "edges", "--control-image", photo] * 2
    code, first, told = run(*SMALL, *nets, "--control-strength", "0.3", "--hires-size", "72x80", "--hires-steps", "1")
    assert code == 0, told
    given = {"from_image": Path(first), "control_strength": [0.9], "control_range": ["0:1", "0.2:0.5"]}
    controls = build_options(given).controls
    assert [control.name for control in controls] == ["edges", "edges"]
    assert [control.strength for control in controls] == [0.9, 1.0]
    assert [(control.start, control.end) for control in controls] == [(0.0, 1.0), (0.2, 0.5)]
    assert [control.image.resolve() for control in controls] == [Path(photo)] * 2
    other = Path("other vae.safetensors")
    controls = build_options({"from_image": Path(first), "control_image": [other, other]}).controls
    assert [(control.name, control.image) for control in controls] == [("edges", other)] * 2
    hires = build_options({"from_image": Path(first), "hires_scale": 1.5, "keep_first_pass": True}).hires
    assert hires is not None and hires.target(64, 64) == (96, 96) and hires.keep_first_pass and hires.steps == 1
    hires = build_options({"from_image": Path(first)}).hires
    assert hires is not None and hires.target(64, 64) == (72, 80) and not hires.keep_first_pass
    assert build_options({"from_image": Path(first), "control_mode": "control"}).controls[1].mode == "control"
    kinds = build_options({"from_image": Path(first), "control_kind": ["depth"]}).controls
    assert [control.kind for control in kinds] == ["depth", None]
    with pytest.raises(OptionsError, match="more --control-strength"):
        build_options({"from_image": Path(first), "control_strength": [1.0, 1.0, 1.0]})


def test_a_path_in_a_tag_of_the_prompt_is_not_written(run: Run, tmp_path: Path) -> None:
    code, first, told = run(f"a cat <lora:{Path('my ink.safetensors').absolute()}:0.5>", *SMALL[1:])
    assert code == 0, told
    text = Image.open(first).info["parameters"]
    assert str(tmp_path) not in text and "<lora:my ink.safetensors:0.5>" in text
    code, again, told = run("--from-image", first, "--device", "cpu", "--quiet")
    assert code == 0, told
    assert Image.open(again).tobytes() == Image.open(first).tobytes()
    assert Image.open(again).info["parameters"] == text


def test_what_is_gone_is_named(run: Run) -> None:
    code, first, _ = run(*SMALL, "--lora", "my ink.safetensors")
    assert code == 0
    os.rename("my ink.safetensors", "renamed.safetensors")
    code, out, told = run("--from-image", first, "--device", "cpu", "--quiet")
    assert code == 3 and out == "" and "my ink.safetensors" in told and told.count("\n") == 1


def test_the_gone_model_can_be_replaced_on_the_command_line(run: Run) -> None:
    _, first, _ = run(*SMALL, "--lora", "my ink.safetensors:0.5")
    os.rename("my ink.safetensors", "renamed.safetensors")
    code, again, told = run("--from-image", first, "--lora", "renamed.safetensors:0.5", "--device", "cpu", "--quiet")
    assert code == 0, told
    assert Image.open(again).tobytes() == Image.open(first).tobytes()


def test_a_picture_is_made_again_from_its_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = command.run(
        capsys, *command.SMALL, "--seed", "11", "--negative", "dog", "--sampler", "DPM++ 2M SDE Karras"
    )
    first = out.strip()
    code, out, _ = command.run(capsys, "--from-image", first, "--device", "cpu", "--quiet")
    assert code == 0 and Path(out.strip()) != Path(first)
    assert Image.open(out.strip()).tobytes() == Image.open(first).tobytes()
    assert Image.open(out.strip()).info["parameters"] == Image.open(first).info["parameters"]
    code, out, _ = command.run(capsys, "--from-image", first, "--seed", "12", "--device", "cpu", "--quiet")
    assert Image.open(out.strip()).tobytes() != Image.open(first).tobytes()


def test_another_precision_than_the_pictures_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _ = command.run(capsys, *command.SMALL, "--dtype", "bfloat16")
    _, again, told = command.run(capsys, "--from-image", first.strip(), "--device", "cpu", "--quiet")
    assert "a different Precision" in told and again
    assert "another" not in command.run(capsys, "--from-image", again.strip(), "--device", "cpu", "--quiet")[2]
    assert "another" not in command.run(capsys, "--from-image", again.strip(), "--dtype", "bfloat16", "--quiet")[2]


def test_a_picture_of_a_checkpoint_given_as_a_path_is_made_again_where_that_is_given_again(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tiny.save_checkpoint(tmp_path / "else where" / "other.safetensors", seed=9)
    _, first, _ = command.run(capsys, *command.SMALL, "--checkpoint", str(elsewhere))
    assert str(tmp_path) not in Image.open(first.strip()).info["parameters"]
    code, _, told = command.run(capsys, "--from-image", first.strip(), "--device", "cpu", "--quiet")
    assert code == 3 and "other.safetensors" in told and "--checkpoint" in told and told.count("\n") == 1
    given = ("--checkpoint", str(elsewhere), "--device", "cpu", "--quiet")
    code, again, told = command.run(capsys, "--from-image", first.strip(), *given)
    assert code == 0 and "another" not in told, told
    assert Image.open(first.strip()).tobytes() == Image.open(again.strip()).tobytes()
    assert Image.open(first.strip()).info["parameters"] == Image.open(again.strip()).info["parameters"]


def test_a_cfg_of_many_digits_is_read_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = command.run(capsys, *command.SMALL, "--cfg", "6.123456789")
    assert build_options({"from_image": Path(out.strip())}).cfg == 6.123456789
