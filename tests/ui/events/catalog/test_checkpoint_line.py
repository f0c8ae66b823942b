"""The line below the checkpoint list."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.paths import ModelFolders
from tests.catalog.header_files import save_header
from ui.events.catalog.checkpoint_line import checkpoint_line

UNET = "model.diffusion_model."
CONTEXT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("name", "metadata", "shapes", "line"),
    [
        ("a", {}, {CONTEXT: [320, 768]}, "SD1.x · native size 512"),
        ("a", {}, {CONTEXT: [64, 128]}, "The header does not tell the family · native size 512"),
        (
            "my_lcm_inpaint",
            {"modelspec.prediction_type": "v"},
            {CONTEXT: [320, 768], f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]},
            "SD1.x · native size 512 · v-prediction · inpainting (9 channels) · few-step (LCM)",
        ),
        ("xl", {}, {CONTEXT: [320, 2048], f"{UNET}label_emb.0.0.weight": [1, 1]}, "SDXL · native size 1024"),
        ("xl", {}, {CONTEXT: [32, 80], f"{UNET}label_emb.0.0.weight": [1, 1]}, "A small SDXL · native size 1024"),
    ],
)
def test_it_says_what_the_header_tells(
    model_root: Path, name: str, metadata: dict[str, str], shapes: dict[str, list[int]], line: str
) -> None:
    folders = ModelFolders(model_root)
    save_header(model_root / "models" / "checkpoints" / f"{name}.safetensors", metadata, shapes)
    assert checkpoint_line(folders, f"{name}.safetensors") == line


def test_it_warns_of_what_cannot_start_a_picture(model_root: Path) -> None:
    folders, home = ModelFolders(model_root), model_root / "models" / "checkpoints"
    save_header(home / "refiner.safetensors", {"modelspec.architecture": "stable-diffusion-xl-v1-refiner"})
    assert checkpoint_line(folders, "refiner").startswith("The SDXL refiner: choose it under Refiner")
    save_header(home / "flux.safetensors", {"modelspec.architecture": "flux-1-dev"})
    assert checkpoint_line(folders, "flux").startswith("Flux, which cannot be used here")
    (home / "broken.safetensors").write_bytes(b"\xff" * 99)
    assert checkpoint_line(folders, "broken").endswith("damaged")


@pytest.mark.parametrize("name", [None, "", "gone.safetensors", "../secret"])
def test_a_missing_file_has_no_line(model_root: Path, name: str | None) -> None:
    assert checkpoint_line(ModelFolders(model_root, names_only=True), name) == ""
