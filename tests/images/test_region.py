"""The part round a mask: its place by rules stated here, and pixels that go there and back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modules.images.region import Box, Region, cut_out, region_round


def picture_of(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).round().astype(np.uint8))


def region_of(size: tuple[int, int], painted: Box, padding: int, aspect: tuple[int, int]) -> Region:
    """`painted` is inclusive, as ImageDraw counts."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(painted, fill=255)
    return region_round(picture_of(*size), mask, padding, *aspect)


@pytest.mark.parametrize(
    ("painted", "padding", "aspect", "box"),
    [
        ((40, 40, 49, 49), 0, (64, 64), (40, 40, 50, 50)),
        ((40, 40, 49, 49), 8, (64, 64), (32, 32, 58, 58)),
        ((40, 40, 49, 49), 0, (128, 64), (35, 40, 55, 50)),  # grown to both sides
        ((40, 40, 49, 49), 0, (64, 128), (40, 35, 50, 55)),
        ((0, 40, 9, 49), 0, (128, 64), (0, 40, 20, 50)),  # moved away from the edge
        ((90, 40, 99, 49), 0, (128, 64), (80, 40, 100, 50)),
        ((0, 0, 9, 9), 20, (64, 64), (0, 0, 30, 30)),  # padding ends at the edge
        ((0, 40, 99, 49), 0, (64, 64), (0, -10, 100, 90)),  # taller than the picture: the middle lies over it
    ],
)
def test_the_box(painted: Box, padding: int, aspect: tuple[int, int], box: Box) -> None:
    assert region_of((100, 80), painted, padding, aspect).box == box


def test_a_black_mask_takes_the_whole_picture() -> None:
    assert region_round(picture_of(96, 64), Image.new("L", (96, 64)), 32, 96, 64).box == (0, 0, 96, 64)


def test_any_mask_is_inside_a_box_of_the_aspect() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        left, top = int(random.integers(0, 90)), int(random.integers(0, 70))
        painted = (left, top, int(random.integers(left, 100)), int(random.integers(top, 80)))
        padding = int(random.integers(0, 40))
        wide, tall = (int(side) for side in random.integers(1, 6, 2))
        left, top, right, bottom = region_of((100, 80), painted, padding, (wide * 64, tall * 64)).box
        assert left <= max(0, painted[0] - padding) and right >= min(100, painted[2] + 1 + padding)
        assert top <= max(0, painted[1] - padding) and bottom >= min(80, painted[3] + 1 + padding)
        assert abs((right - left) * tall - (bottom - top) * wide) <= max(wide, tall) / 2  # half a pixel
        for start, end, most in ((left, right, 100), (top, bottom, 80)):
            assert 0 <= start <= end <= most or end - start > most


@pytest.mark.parametrize("painted", [(30, 30, 45, 45), (0, 30, 99, 39), (90, 70, 99, 79)])
def test_a_part_that_nobody_changed_fits_where_it_was(painted: Box) -> None:
    region = region_of((100, 80), painted, 4, (128, 128))
    part = cut_out(region.picture, region.box, 256, 256)
    assert part.size == (256, 256)
    whole = np.asarray(region.put_back(part), dtype=int)
    assert np.abs(whole - np.asarray(region.picture, dtype=int)).max() <= 2


def test_only_the_masked_pixels_change() -> None:
    region = region_of((100, 80), (30, 30, 45, 45), 10, (64, 64))
    whole = np.asarray(region.put_back(Image.new("RGB", (64, 64), (1, 2, 3))))
    white = np.asarray(region.mask) == 255
    assert (whole[~white] == np.asarray(region.picture)[~white]).all()
    assert (whole[white] == (1, 2, 3)).all()


def test_beyond_the_picture_its_border_is_repeated() -> None:
    region = region_of((100, 80), (0, 40, 99, 49), 0, (64, 64))
    part = np.asarray(cut_out(region.picture, region.box, 100, 100), dtype=int)
    assert (part[:10] == part[10]).all() and (part[90:] == part[89]).all()
    assert np.abs(part[10:90] - np.asarray(region.picture, dtype=int)).max() == 0
