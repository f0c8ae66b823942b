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
    DEMOS,
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


def test_the_users_own_checkpoint_comes_before_the_demos(folders: ModelFolders) -> None:
    assert default_checkpoint(folders) is None and not has_own_checkpoint(folders)
    for demo in reversed(DEMOS):
        save(folders, demo)
        assert default_checkpoint(folders) == demo and not has_own_checkpoint(folders)
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


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.label_emb.0.0.weight",
        "unet.add_embedding.linear_1.weight",
        "model_ema.diffusion_modellabel_emb00weight",
    ],
)
def test_sdxl_is_known_by_its_names(folders: ModelFolders, name: str) -> None:
    path = folders.folders("checkpoints")[0] / "xl.safetensors"
    save_file({name: torch.zeros(1)}, path)
    assert checkpoint_facts(folders, path.name).native_size == 1024
    save_file({name: torch.zeros(1)}, path, metadata={"lightdiffusion": '{"native_size": 256}'})
    assert checkpoint_facts(folders, path.name).native_size == 256


@pytest.mark.parametrize("zipped", [True, False])
def test_sdxl_is_known_in_a_pickle_too(folders: ModelFolders, *, zipped: bool) -> None:
    path = folders.folders("checkpoints")[0] / "xl.ckpt"
    weights = {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(1)}
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=zipped)
    assert checkpoint_facts(folders, path.name).native_size == 1024
    torch.save({"state_dict": {"model.diffusion_model.out.0.weight": torch.zeros(1)}}, path)
    assert checkpoint_facts(folders, path.name).native_size == 512


@pytest.mark.parametrize(("config", "size"), [('{"addition_embed_type": "text_time"}', 1024), ("{}", 512), ("[", 512)])
def test_a_folder_is_known_by_its_config(folders: ModelFolders, config: str, size: int) -> None:
    unet = folders.folders("checkpoints")[0] / "xl" / "unet"
    unet.mkdir(parents=True)
    (unet.parent / "model_index.json").write_text("{}")
    (unet / "config.json").write_text(config)
    assert checkpoint_facts(folders, "xl").native_size == size


def test_sdxls_shapes_are_those_of_its_training() -> None:
    sizes = [(width, height) for _, width, height in size_presets(1024)]
    assert sizes[0] == (1024, 1024) and {(1152, 896), (1216, 832), (1344, 768), (1536, 640)} < set(sizes)
    assert {(height, width) for width, height in sizes} == set(sizes)
    assert all(width % 64 == height % 64 == 0 and 0.9 < width * height / 2**20 < 1.01 for width, height in sizes)


@pytest.mark.parametrize("native", [128, 512, 768])
def test_presets_are_shapes_near_the_native_size(native: int) -> None:
    presets = {name: (width, height) for name, width, height in size_presets(native)}
    assert presets["Square"] == (native, native)
    assert presets["Portrait"] == presets["Landscape"][::-1] and presets["Tall"] == presets["Wide"][::-1]
    assert all(side % 8 == 0 for size in presets.values() for side in size)
    assert native < presets["Landscape"][0] < presets["Wide"][0] <= 2 * native
