"""Facts about checkpoints that are shown without loading one: default checkpoint, file size, description."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.catalog.models import (
    DEMO,
    DEMO_HINT,
    checkpoint_facts,
    default_checkpoint,
    has_own_checkpoint,
    size_presets,
)
from modules.core.paths import ModelFolders


@pytest.fixture
def folders(model_root: Path) -> ModelFolders:
    return ModelFolders(model_root)


def save(folders: ModelFolders, name: str, **header: str) -> str:
    save_file({"x": torch.zeros(1)}, folders.folders("checkpoints")[0] / name, metadata=header)
    return name


def test_the_users_own_checkpoint_comes_before_the_demo(folders: ModelFolders) -> None:
    assert default_checkpoint(folders) is None and not has_own_checkpoint(folders)
    save(folders, DEMO)
    assert default_checkpoint(folders) == DEMO and not has_own_checkpoint(folders)
    own = save(folders, "zebra.safetensors")
    assert default_checkpoint(folders) == own and has_own_checkpoint(folders)


@pytest.mark.parametrize(
    ("header", "size", "description"),
    [
        ({}, 512, ""),
        ({"modelspec.resolution": "768x768"}, 768, ""),
        ({"lightdiffusion": json.dumps({"native_size": 128, "description": "shapes"})}, 128, "shapes"),
        ({"lightdiffusion": json.dumps({"native_size": 129, "description": 3})}, 512, ""),
        ({"lightdiffusion": "{"}, 512, ""),
    ],
)
def test_the_header_tells_size_and_description(
    folders: ModelFolders, header: dict[str, str], size: int, description: str
) -> None:
    facts = checkpoint_facts(folders, save(folders, "a.safetensors", **header))
    assert (facts.native_size, facts.description) == (size, description)


def test_a_file_that_tells_nothing_counts_as_sd1(folders: ModelFolders) -> None:
    (folders.folders("checkpoints")[0] / "old.ckpt").write_bytes(b"x")
    for name in (None, "gone", "old.ckpt"):
        facts = checkpoint_facts(folders, name)
        assert (facts.native_size, facts.description) == (512, "")
    assert checkpoint_facts(folders, save(folders, DEMO)).description == DEMO_HINT


@pytest.mark.parametrize("native", [128, 512, 768])
def test_presets_are_shapes_near_the_native_size(native: int) -> None:
    presets = {name: (width, height) for name, width, height in size_presets(native)}
    assert presets["Square"] == (native, native)
    assert presets["Portrait"] == presets["Landscape"][::-1] and presets["Tall"] == presets["Wide"][::-1]
    assert all(side % 8 == 0 for size in presets.values() for side in size)
    assert native < presets["Landscape"][0] < presets["Wide"][0] <= 2 * native
