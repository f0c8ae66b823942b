"""Covers a picture with overlapping tiles of one size, and blends pictures of these tiles into one (no torch)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
from PIL import Image

from modules.core.errors import OptionsError
from modules.core.sizes import SIZE_STEP
from modules.images.region import Box, cut_out

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The tiles over a picture. All sizes are in pixels, as (width, height); each tile is a multiple of 8.

    Neighbours overlap by at least `overlap`. A tile reaches beyond a picture that is smaller than the tile, and up to 7
    pixels beyond one that is no multiple of 8. Raises OptionsError if the overlap is over half a tile.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        if 2 * self.overlap > min(self.tile):
            raise OptionsError(
                f"Tiles of {self.tile[0]}x{self.tile[1]} cannot overlap by {self.overlap} pixels: "
                f"choose {min(self.tile) // 2} at most."
            )

    @property
    def boxes(self) -> list[Box]:
        """The tiles row by row."""
        (wide, high), (lefts, tops) = self.tile, self._starts
        return [(left, top, left + wide, top + high) for top, left in product(tops, lefts)]

    @property
    def covered(self) -> tuple[int, int]:
        """The size that the tiles cover together."""
        width, height = (starts[-1] + side for starts, side in zip(self._starts, self.tile, strict=True))
        return width, height

    def cut(self, image: Image.Image, box: Box) -> Image.Image:
        """Returns this tile of an image of the picture's size."""
        return cut_out(image, box, *self.tile)

    def blended(self, pieces: Iterable[Image.Image]) -> Image.Image:
        """Returns the picture made of these tiles, given in the order of `boxes`. It fades from each to the next."""
        width, height = self.covered
        across, down = (axis_weights(*axis) for axis in zip(self._starts, self.tile, strict=True))
        sums = np.zeros((height, width, 3), dtype=np.float32)
        places = product(zip(self._starts[1], down, strict=True), zip(self._starts[0], across, strict=True))
        for ((top, rows), (left, columns)), piece in zip(places, pieces, strict=True):
            part = sums[top : top + len(rows), left : left + len(columns)]
            part += rows[:, None, None] * columns[None, :, None] * np.asarray(piece, dtype=np.float32)
        return Image.fromarray(sums.round().clip(0, 255).astype(np.uint8)).crop((0, 0, *self.size))

    @property
    def _starts(self) -> tuple[list[int], list[int]]:
        """The left edges and the upper edges."""
        lefts, tops = (tile_starts(*axis, self.overlap) for axis in zip(self.size, self.tile, strict=True))
        return lefts, tops


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Returns where tiles begin along one side: evenly, in multiples of 8, with at least `overlap` in common."""
    cells, side = math.ceil(length / SIZE_STEP), tile // SIZE_STEP
    shared = math.ceil(overlap / SIZE_STEP)
    room = max(0, cells - side)
    steps = math.ceil(room / (side - shared))
    return [0, *(room * step // steps * SIZE_STEP for step in range(1, steps + 1))]


def axis_weights(starts: list[int], tile: int) -> list[Weights]:
    """Returns the weights of each tile's pixels along one side; over all tiles, those of a pixel sum to 1.

    Where two tiles overlap, one rises as sin² from its rim while the other falls.
    """
    shared = min((first + tile - second for first, second in pairwise(starts)), default=1)
    to_rim = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    rising = np.sin(np.pi / 2 * np.minimum(to_rim / max(shared, 1), 1.0)) ** 2
    sums = np.zeros(starts[-1] + tile)
    for start in starts:
        sums[start : start + tile] += rising
    return [(rising / sums[start : start + tile]).astype(np.float32) for start in starts]
