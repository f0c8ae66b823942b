"""Makes a mask of everything in a picture that has nearly one colour (no torch)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from modules.core.colours import Colour
from modules.images.modes import to_rgb


def mask_of_colour(picture: Image.Image, colour: Colour, tolerance: int) -> Image.Image:
    """Returns a grey picture, white where no channel differs from `colour` by more than `tolerance` (0 to 255)."""
    pixels = np.asarray(to_rgb(picture), dtype=np.int16)
    near = np.abs(pixels - np.array(colour, dtype=np.int16)).max(axis=2) <= tolerance
    return Image.fromarray(np.where(near, np.uint8(255), np.uint8(0)))
