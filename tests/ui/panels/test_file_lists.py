"""The sizes offered on the page follow the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.paths import ModelFolders
from modules.generation.option_table import STABLE_FAST_PRECISIONS
from ui.fields import defaults
from ui.panels.file_lists import FileLists
from ui.panels.inputs import level_choices, precision_choices


@pytest.fixture
def lists(model_root: Path) -> FileLists:
    folders = ModelFolders(model_root)
    checkpoints = folders.folders("checkpoints")[0]
    save_file({"model.diffusion_model.label_emb.0.0.weight": torch.zeros(1)}, checkpoints / "xl.safetensors")
    save_file({"x": torch.zeros(1)}, checkpoints / "sd2.safetensors", metadata={"modelspec.resolution": "768x768"})
    save_file({"x": torch.zeros(1)}, checkpoints / "sd1.safetensors")
    return FileLists(folders=folders)


@pytest.mark.parametrize(
    ("name", "side", "labels"),
    [
        ("sd1", 512, {"Square 512 × 512", "Portrait 512 × 768", "Wide 896 × 512"}),
        ("sd2", 768, {"Square 768 × 768", "Portrait 768 × 1152", "Wide 1344 × 768"}),
        ("xl", 1024, {"Square 1024 × 1024", "Portrait 832 × 1216", "Wide 1536 × 640", "Wide 1344 × 768"}),
    ],
)
def test_shapes_follow_the_checkpoint(lists: FileLists, name: str, side: int, labels: set[str]) -> None:
    shapes = lists.shapes(f"{name}.safetensors", side, side)
    assert shapes["value"] == f"{side}x{side}"
    assert labels <= {label for label, _ in shapes["choices"]}
    other = lists.shapes(f"{name}.safetensors", 500, 500)
    assert other == {**shapes, "value": ""} and ("Own size", "") in other["choices"]


def test_a_name_without_its_extension_is_the_listed_file(lists: FileLists) -> None:
    fresh = defaults(lists.folders)
    form = {**fresh, "checkpoint": "sd1", "vae": "unknown"}
    assert lists.listed(form) == {**form, "checkpoint": "sd1.safetensors"}


def test_levels_say_if_there_is_no_gpu_for_them() -> None:
    labels = {name: label for label, name in level_choices(gpu=False)}
    assert "no NVIDIA GPU" in labels["full"] and "no NVIDIA GPU" in labels["graph"] and "no" not in labels["fused"]
    assert "NVIDIA" not in str(level_choices(gpu=True))


def test_precisions_say_what_they_are_for_and_which_need_a_gpu() -> None:
    labels = {name: label for label, name in precision_choices(gpu=False)}
    assert labels.pop("off") == "off: as the model" and all("no NVIDIA GPU" in label for label in labels.values())
    labels = {name: label for label, name in precision_choices(gpu=True)}
    assert tuple(labels) == STABLE_FAST_PRECISIONS
    assert labels["fp8"] == "fp8: products in fp8, RTX 40 and newer" and "NVIDIA" not in str(labels)


def test_a_size_of_another_family_is_an_own_size(lists: FileLists) -> None:
    assert lists.shapes("xl.safetensors", 832, 1216)["value"] == "832x1216"
    assert lists.shapes("sd1.safetensors", 832, 1216)["value"] == ""
