"""Canny edges are bit-identical to OpenCV's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modules.controlnet.preprocessors import canny


def square(size: int = 96) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).rectangle((24, 24, size - 25, size - 25), fill="red")
    return image


def test_canny_finds_the_outline_only() -> None:
    edges = np.asarray(canny(square()))[..., 0]
    assert set(np.unique(edges)) == {0, 255}
    ys, xs = np.nonzero(edges)
    on_outline = (np.abs(ys - 24) < 3) | (np.abs(ys - 71) < 3) | (np.abs(xs - 24) < 3) | (np.abs(xs - 71) < 3)
    assert on_outline.all() and len(ys) > 150


@pytest.mark.parametrize("seed", range(40))
def test_edges_are_opencvs_bit_for_bit(seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 90, 2)
    coarseness = random.integers(1, 6)  # from noise to large soft shapes
    small = random.integers(0, 256, (max(1, height // coarseness), max(1, width // coarseness), 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC)
    low, high = sorted(random.uniform(1, 600, 2)) if seed % 2 else (100.0, 200.0)
    edges = np.asarray(canny(picture, low, high))[..., 0]
    assert (edges == cv2.Canny(np.asarray(picture), low, high)).all()


def test_a_weak_edge_counts_where_it_leads_to_a_strong_one() -> None:
    picture = Image.new("RGB", (60, 40))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 20, 59, 39), fill=35)  # weak: a step of 35 has a gradient of 140
    draw.rectangle((50, 20, 59, 39), fill=255)
    connected = np.asarray(canny(picture))[..., 0]
    assert (connected[18:22, 2:48].max(axis=0) == 255).all()
    alone = picture.crop((0, 0, 48, 40))
    assert not np.asarray(canny(alone)).any()
