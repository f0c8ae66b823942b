"""The seams of a tiled upscale, measured on the demo model: the picture steps no more there than inside the tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions, InitImage, TiledOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.images.tiles import tile_starts

TILE = 128


@pytest.fixture(scope="module")
def session(demo_checkpoint: Path) -> Session:
    return Session(ModelFolders(demo_checkpoint.parents[2]), device="cpu", dtype="float32")


def step_at_rims(session: Session, folder: Path, width: int, overlap: int) -> float:
    """Returns the mean difference of neighbouring columns at the tiles' rims, over that inside the tiles.

    The start picture is a sky whose rows have one colour each, so all differences come from the model.
    """
    sky = np.linspace((40, 60, 160), (250, 150, 60), TILE)[:, None].repeat(width, axis=1)
    Image.fromarray(sky.astype(np.uint8)).save(folder / "sky.png")
    options = GenerationOptions(
        prompt="A beautiful sunset over the ocean",
        checkpoint="demo",
        width=TILE,
        height=TILE,
        steps=8,
        seed=3,
        init=InitImage(image=folder / "sky.png", denoise=0.5),
        tiled=TiledOptions(scale=1.0, overlap=overlap),
    )
    (picture,) = generate(options, session)
    steps = np.abs(np.diff(np.asarray(picture.image, dtype=float), axis=1)).mean((0, 2))
    rims = {rim for start in tile_starts(width, TILE, overlap) for rim in (start, start + TILE)} - {0, width}
    at_rims = np.isin(np.arange(1, width), list(rims))
    assert at_rims.sum() == len(rims) > 0
    return float(steps[at_rims].mean() / steps[~at_rims].mean())


def test_seams_cannot_be_seen(session: Session, tmp_path: Path) -> None:
    assert step_at_rims(session, tmp_path, 224, overlap=32) < 1.3
    assert step_at_rims(session, tmp_path, 256, overlap=0) > 2  # what the measure says of a hard edge
