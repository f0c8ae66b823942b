"""Extends a picture to its sides, and makes the mask of the new area with a soft seam."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from modules.core.sizes import Sides, extended_size
from modules.images.resize import pad_with_border

BLUR_SHARE = 0.25  # of the new area's depth: enough to melt the streaks of repeated border pixels


def extended(picture: Image.Image, sides: Sides, feather: int) -> tuple[Image.Image, Image.Image]:
    """Returns the extended picture and its mask (grey, white is repainted).

    The new area repeats the border pixels, blurred. The mask fades over `feather` pixels of the old picture, which
    stays bit-equal. Sides that are not multiples of 8 lose up to 7 pixels on the right and at the bottom first.
    """
    picture = whole_cells(picture)
    width, height = extended_size(picture.size, sides)
    stretched = pad_with_border(picture, width, height, sides.left, sides.top)
    blurred = stretched.filter(ImageFilter.GaussianBlur(max(sides) * BLUR_SHARE))
    blurred.paste(picture, (sides.left, sides.top))
    across = _seam(width, sides.left, sides.right, feather)
    down = _seam(height, sides.top, sides.bottom, feather)
    mask = np.maximum(across[None, :], down[:, None])
    return blurred, Image.fromarray(np.rint(mask * 255).astype(np.uint8))


def whole_cells(picture: Image.Image) -> Image.Image:
    """Cuts off what goes beyond multiples of 8 pixels on the right and at the bottom."""
    width, height = extended_size(picture.size, Sides())
    return picture.crop((0, 0, width, height))


def _seam(length: int, before: int, after: int, feather: int) -> NDArray[np.float64]:
    """Returns one line of the mask: 1 in the new area at both ends, and fading to 0 inside."""
    place = np.arange(length)
    line = np.zeros(length)
    for new, depth in ((before, place - before), (after, length - 1 - after - place)):
        if new:
            line = np.maximum(line, 1.0 - (depth + 1) / (feather + 1))
    return line.clip(0.0, 1.0)
