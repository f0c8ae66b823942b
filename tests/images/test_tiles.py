"""Tiles over pictures of any size: their places by rules stated here, and pictures that come back unchanged."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.images.tiles import Tiles, axis_weights, tile_starts

SIZES = [(64, 64), (65, 200), (511, 513), (513, 511), (37, 1000), (1024, 769), (72, 72), (999, 65)]
SETTINGS = [((64, 64), 0), ((64, 64), 16), ((128, 96), 48), ((64, 128), 13), ((512, 512), 64)]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), SETTINGS)
def test_all_tiles_have_one_size_and_blend_to_the_same_picture(
    size: tuple[int, int], tile: tuple[int, int], overlap: int
) -> None:
    picture, tiles = noise(*size), Tiles(size=size, tile=tile, overlap=overlap)
    pieces = [tiles.cut(picture, box) for box in tiles.boxes]
    assert {piece.size for piece in pieces} == {tile}
    assert all(side % 8 == 0 for box in tiles.boxes for side in box)
    assert np.array_equal(np.asarray(tiles.blended(pieces)), np.asarray(picture))


@pytest.mark.parametrize("length", [8, 63, 64, 65, 128, 129, 500, 511, 1000, 2047])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 8), (64, 13), (64, 32), (512, 64), (512, 256)])
def test_the_weights_of_each_pixel_sum_to_one(length: int, tile: int, overlap: int) -> None:
    starts = tile_starts(length, tile, overlap)
    sums = np.zeros(starts[-1] + tile)
    for start, weights in zip(starts, axis_weights(starts, tile), strict=True):
        assert weights.min() > 0
        sums[start : start + tile] += weights
    assert np.abs(sums - 1).max() < 1e-6
    assert starts[0] == 0 and max(length, tile) <= len(sums) < max(length, tile) + 8
    assert all(first + tile - second >= overlap for first, second in pairwise(starts))


def test_no_more_tiles_than_needed() -> None:
    assert tile_starts(512, 512, 64) == [0]
    assert tile_starts(960, 512, 64) == [0, 448]
    assert tile_starts(968, 512, 64) == [0, 224, 456]
    assert tile_starts(1024, 512, 64) == [0, 256, 512]


def test_a_tile_fades_into_the_next_without_a_step() -> None:
    """A black tile beside a white one: the grey rises, by at most the steepest step of sin² over the overlap."""
    tiles = Tiles(size=(112, 64), tile=(64, 64), overlap=16)
    black, white = (Image.new("RGB", (64, 64), (value,) * 3) for value in (0, 255))
    row = np.asarray(tiles.blended([black, white]), dtype=int)[32, :, 0]
    steps = np.diff(row)
    assert row[:48].max() == 0 and row[64:].min() == 255
    assert steps.min() >= 0 and steps.max() <= 255 * np.pi / 2 / 16 + 1


def test_an_overlap_over_half_a_tile_is_refused() -> None:
    with pytest.raises(OptionsError, match="cannot overlap by 40 pixels: choose 32 at most"):
        Tiles(size=(500, 500), tile=(64, 128), overlap=40)
