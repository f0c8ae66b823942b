"""Tests what a session keeps between requests, reloads, and releases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import KINDS, ModelFolders
from modules.generation.checks.model_files import checkpoint_path, text_encoder_paths
from modules.generation.options import GenerationOptions, LoraChoice
from modules.generation.session import Session
from tests import tiny, tiny_project
from tests.generation.test_text_to_image import make, pixels

REQUEST = GenerationOptions(prompt="a cat")


def test_no_checkpoint_at_all_is_a_sentence(model_root: Any) -> None:
    with pytest.raises(ModelFileError, match="no checkpoint"):
        make(Session(ModelFolders(model_root), device="cpu"))


def test_a_checkpoint_that_was_replaced_is_loaded_again(tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / "models" / kind).mkdir(parents=True)
    path = tiny.save_checkpoint(tmp_path / "models" / "checkpoints" / "mine.safetensors", seed=0)
    own = Session(ModelFolders(tmp_path), device="cpu")
    first = make(own)[0]
    path.unlink()
    tiny.save_checkpoint(path, seed=9)
    os.utime(path, ns=(1, 1))
    assert (pixels(make(own)[0]) != pixels(first)).any()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path_factory.mktemp("session")))


def test_asking_again_costs_nothing(project: Session) -> None:
    model = project.model(REQUEST)
    assert project.model(GenerationOptions(prompt="a dog", checkpoint="tiny")) is model
    assert project.controlnet(model, "edges") is project.controlnet(model, "edges")
    assert project.networks(model, "fused") is project.networks(model, "fused")


def test_freeing_lets_everything_go(project: Session) -> None:
    model = project.model(REQUEST)
    net, fast = project.controlnet(model, "edges"), project.networks(model, "fused")
    project.free()
    assert project.stable_fast_report is None
    again = project.model(REQUEST)
    assert again is not model
    assert project.controlnet(again, "edges") is not net and project.networks(again, "fused") is not fast


def test_loras_are_merged_and_taken_out_bit_for_bit(project: Session) -> None:
    model = project.model(REQUEST)

    def weights() -> list[bytes]:
        return [parameter.numpy().tobytes() for parameter in model.unet.module.parameters()]

    before = weights()
    project.patched(model, [LoraChoice(name="ink", strength=0.5)])
    merged = weights()
    project.patched(model, [])
    assert weights() == before != merged


def test_a_text_encoder_may_be_named_by_its_checkpoint(project: Session) -> None:
    named = GenerationOptions(prompt="x", text_encoders=("tiny",))
    assert text_encoder_paths(project.folders, named) == [checkpoint_path(project.folders, "tiny")]
    with pytest.raises(ModelFileError, match="none-such"):
        text_encoder_paths(project.folders, GenerationOptions(prompt="x", text_encoders=("none-such",)))
    with pytest.raises(OptionsError, match="one text encoder"):
        project.model(GenerationOptions(prompt="x", text_encoders=("tiny", "tiny")))
