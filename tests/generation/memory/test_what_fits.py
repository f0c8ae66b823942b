"""The doctor's line about memory: sizes from the header, free memory, and what `--memory auto` chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders
from modules.generation.memory.what_fits import choice_text, what_fits
from modules.generation.options import GenerationOptions
from modules.loader.placement import TEXT, VAE, Needs
from tests import tiny_project


def test_the_line_names_the_networks_as_they_will_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = tiny_project.session_at(tiny_project.project(tmp_path))
    monkeypatch.setattr("modules.generation.memory.what_fits.gib", lambda size: f"<{size}>")
    monkeypatch.setattr("modules.generation.memory.what_fits.free_memory", lambda device: 12345)
    line = what_fits("tiny", folders=session.folders, device_name="cpu", dtype_name="float16")
    model = session.model(GenerationOptions(prompt=""))
    networks = {"UNet": model.unet.module, TEXT: model.text.module, VAE: model.vae}
    for name, network in networks.items():
        size = sum(weight.numel() for weight in network.parameters()) * torch.float16.itemsize
        assert f"{name} <{size}>" in line
    assert line.startswith("<12345> free on cpu; tiny.safetensors needs UNet")
    assert line.endswith("--memory has no effect on cpu")


def test_without_any_checkpoint_the_line_says_so_and_a_wrong_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    folders = ModelFolders(tmp_path)
    assert "no checkpoint" in what_fits(None, folders=folders, device_name="cpu")
    with pytest.raises(ModelFileError, match='"mine"'):
        what_fits("mine", folders=folders, device_name="cpu")


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (116, "all stay on the GPU"),
        (115, "text encoder is on the GPU only while at work"),
        (95, "text encoder and VAE are on the GPU only while at work"),
    ],
)
def test_the_choice_of_auto_is_told(free: int, words: str) -> None:
    needs = Needs(networks={"UNet": 70, TEXT: 20, VAE: 6}, work=20)
    assert choice_text(needs, free) == f"{words} (--memory auto)"
