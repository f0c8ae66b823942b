"""A picture, and a session on a tiny random checkpoint, so that whole generations take a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modules.core.paths import KINDS, ModelFolders
from modules.generation.session import Session
from tests import tiny


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    for kind in KINDS:
        (root / "models" / kind).mkdir(parents=True)
    tiny.save_checkpoint(root / "models" / "checkpoints" / "tiny.safetensors")
    return root


@pytest.fixture(scope="session")
def session(tiny_root: Path) -> Session:
    return Session(ModelFolders(tiny_root), device="cpu")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 72), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    picture = Image.new("L", (64, 72))
    ImageDraw.Draw(picture).rectangle((32, 0, 63, 71), fill=255)
    picture.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"
