"""LoRAs in whole requests: the meaning of strengths, where names are allowed, and a clean model afterwards."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pipeline
from modules.core import paths
from modules.core.errors import LightDiffusionError, ModelFileError
from modules.gallery import output
from modules.gallery.picture import Picture
from modules.generation.metadata.write import from_parameters
from modules.generation.options import GenerationOptions, LoraChoice
from modules.generation.session import MOST_LORAS, Session
from modules.generation.text_to_image import generate
from tests import tiny_project

INK, CLAY = LoraChoice(name="ink", strength=0.8, text_strength=0.5), LoraChoice(name="clay", strength=-0.6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("loras"))


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return tiny_project.session_at(root)


def make(session: Session, *loras: LoraChoice, **changes: Any) -> Picture:
    values: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 5, "cfg": 3.0}
    return list(generate(GenerationOptions(**values | {"loras": loras} | changes), session))[-1]


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image, dtype=int)


def same(first: Picture, second: Picture) -> bool:
    return bool((pixels(first) == pixels(second)).all())


@pytest.fixture
def plain(session: Session) -> Picture:
    return make(session)


def test_strength_zero_is_absence(session: Session, plain: Picture) -> None:
    assert same(make(session, LoraChoice(name="ink", strength=0.0)), plain)
    assert same(make(session, prompt="a cat<lora:ink:0>"), plain)


def test_a_tag_in_the_prompt_is_the_option(session: Session, plain: Picture) -> None:
    by_option = make(session, INK)
    assert not same(by_option, plain)
    assert same(make(session, prompt="a cat<lora:ink:0.8:0.5>"), by_option)
    assert same(make(session, CLAY, prompt="a cat<lora:ink:0.8:0.5>"), make(session, CLAY, INK))


def test_strength_of_the_text_encoder_is_its_own(session: Session, plain: Picture) -> None:
    model_only = make(session, LoraChoice(name="ink", strength=0.8, text_strength=0.0))
    text_only = make(session, LoraChoice(name="ink", strength=0.0, text_strength=0.8))
    both = make(session, LoraChoice(name="ink", strength=0.8))
    pictures = [plain, model_only, text_only, both]
    assert all(not same(a, b) for i, a in enumerate(pictures) for b in pictures[:i])


def test_on_off_on_in_one_session_is_bit_exact(session: Session, plain: Picture) -> None:
    on = make(session, INK)
    assert same(make(session), plain)
    assert same(make(session, INK), on)
    assert not same(make(session, LoraChoice(name="ink", strength=0.4)), on)
    assert same(make(session), plain)


def test_two_at_once_and_one_taken_away(session: Session) -> None:
    first, both = make(session, INK), make(session, INK, CLAY)
    assert not same(both, first) and not same(both, make(session, CLAY))
    assert same(make(session, INK), first)
    assert np.abs(pixels(make(session, CLAY, INK)) - pixels(both)).max() <= 1  # fp32 sums in another order


def test_the_same_one_twice_adds_up(session: Session) -> None:
    half = LoraChoice(name="ink", strength=0.4)
    assert (
        np.abs(pixels(make(session, half, half)) - pixels(make(session, LoraChoice(name="ink", strength=0.8)))).max()
        <= 1
    )


def test_a_strength_and_its_opposite_cancel(session: Session, plain: Picture) -> None:
    both = make(session, LoraChoice(name="ink", strength=0.8), LoraChoice(name="ink", strength=-0.8))
    assert np.abs(pixels(both) - pixels(plain)).max() <= 1


def test_a_tag_in_the_negative_prompt_does_nothing_and_says_so(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        picture = make(session, negative_prompt="dog<lora:ink:0.8>")
    assert same(picture, make(session, negative_prompt="dog"))
    assert "negative prompt" in caplog.text and "ink" in caplog.text


@pytest.mark.parametrize("changes", [{"loras": (INK, CLAY)}, {"prompt": "a <lora:clay:0.7>cat", "loras": (INK,)}])
def test_the_picture_is_made_again_from_its_text(session: Session, changes: dict[str, Any]) -> None:
    picture = make(session, **changes)
    make(session)
    again = list(generate(from_parameters(picture.parameters), session))
    assert same(again[0], picture) and again[0].parameters == picture.parameters


def test_a_file_that_changed_on_disk_is_read_again(session: Session, root: Path) -> None:
    path = root / "models" / "loras" / "fresh.safetensors"
    tiny_project.save_lora(path, seed=1)
    before = make(session, LoraChoice(name="fresh"))
    tiny_project.save_lora(path, seed=2)
    os.utime(path, (1, 1))
    assert not same(make(session, LoraChoice(name="fresh")), before)


def test_only_the_last_few_are_kept_ready(session: Session, root: Path) -> None:
    names = [f"many{number}" for number in range(MOST_LORAS + 2)]
    for number, name in enumerate(names):
        tiny_project.save_lora(root / "models" / "loras" / f"{name}.safetensors", seed=100 + number)
    first = make(session, LoraChoice(name=names[0]), steps=1)
    every = make(session, *(LoraChoice(name=name, strength=0.1) for name in names), steps=1)
    assert {key[0].stem for key in session._loras._kept} == set(names[-MOST_LORAS:])
    assert same(make(session, *(LoraChoice(name=name, strength=0.1) for name in names), steps=1), every)
    assert same(make(session, LoraChoice(name=names[0]), steps=1), first)


def test_a_request_that_fails_leaves_nothing_behind(session: Session, plain: Picture, root: Path) -> None:
    tensors = load_file(root / "models" / "loras" / "ink.safetensors")
    tensors[f"{tiny_project.UNET_LAYERS[-1]}.lora_up.weight"].fill_(float("nan"))
    save_file(tensors, root / "models" / "loras" / "torn.safetensors")
    for name in ("gone", "torn"):
        with pytest.raises(LightDiffusionError):
            make(session, INK, LoraChoice(name=name))
        assert same(make(session), plain)


@pytest.fixture
def run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(paths, "PROJECT_ROOT", root)
    monkeypatch.setattr(output, "PROJECT_ROOT", tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = pipeline.main(["a cat", "64", "64", "1", "1", "--steps", "1", "--device", "cpu", "--quiet", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def other_family(path: Path) -> None:
    tiny_project.save_lora(path, sd2=True)


def cut(path: Path) -> None:
    data = tiny_project.save_lora(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def not_a_number(path: Path) -> None:
    save_file(
        {name: torch.full_like(t, torch.nan) for name, t in load_file(tiny_project.save_lora(path)).items()}, path
    )


def half_a_pair(path: Path) -> None:
    tensors = load_file(tiny_project.save_lora(path))
    save_file({name: tensor for name, tensor in tensors.items() if "lora_up" in name}, path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (other_family, ["SD2", "SD1"]),
        (cut, ["bad.safetensors"]),
        (not_a_number, ["bad.safetensors"]),
        (half_a_pair, ["bad.safetensors"]),
        (lambda path: path.write_text("<html>404</html>"), ["bad.safetensors"]),
        (lambda path: path.write_bytes(b""), ["bad.safetensors"]),
        (lambda path: save_file({"x": torch.zeros(1)}, path), ["bad.safetensors", "LoRA"]),
        (lambda path: path.mkdir(), ["bad"]),
    ],
)
def test_bad_files_are_one_sentence(run: Any, tmp_path: Path, write: Callable[[Path], None], words: list[str]) -> None:
    path = tmp_path / "bad.safetensors"
    write(path)
    code, out, err = run("--lora", f"{path}:0.8")
    assert code == ModelFileError.exit_code and out == "" and err.count("\n") == 1 and err.startswith("error: "), err
    assert all(word in err for word in words), err
