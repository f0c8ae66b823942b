"""Divides a mask into its separate parts (no torch)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from modules.core.errors import OptionsError

CELL = 8  # parts that share a square of so many pixels, or lie in squares side by side, are one part
MOST_PARTS = 64
_NEW = 255


def separate_parts(mask: Image.Image) -> list[Image.Image]:
    """Returns one mask (grey, of the same size) for each connected part, from the top to the bottom.

    A mask that is black everywhere has no parts. Raises OptionsError for more than 64.
    """
    cells = Image.fromarray(_cells(np.asarray(mask))).copy()  # numpy's own memory cannot be painted on
    parts: list[Image.Image] = []
    while (first := _first_new(cells)) is not None:
        if len(parts) == MOST_PARTS:
            raise OptionsError(f"The mask has more than {MOST_PARTS} separate parts: repaint some of them first.")
        number = len(parts) + 1
        ImageDraw.floodfill(cells, first, number)
        own = cells.point([255 if value == number else 0 for value in range(256)])
        whole = own.resize((cells.width * CELL, cells.height * CELL), Image.Resampling.NEAREST)
        parts.append(ImageChops.darker(mask, whole.crop((0, 0, *mask.size))))
    return parts


def _cells(mask: np.ndarray) -> np.ndarray:
    """Returns one value for each square of 8 x 8 pixels: 255 where anything in it is not black, else 0."""
    height, width = (side + -side % CELL for side in mask.shape)
    padded = np.zeros((height, width), dtype=bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask > 0
    return np.where(padded.reshape(height // CELL, CELL, width // CELL, CELL).any((1, 3)), _NEW, 0).astype(np.uint8)


def _first_new(cells: Image.Image) -> tuple[int, int] | None:
    rows, columns = np.nonzero(np.asarray(cells) == _NEW)
    return (int(columns[0]), int(rows[0])) if len(rows) else None
