"""Converts pictures of any mode to 8 bits, with one rule for transparency and one for larger values (no torch)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from modules.core.errors import OptionsError
from modules.images.open import upright

WHITE = (255, 255, 255, 255)
# 32-bit pictures do not specify the value of white. These values are in use.
WHITES_OF_32_BIT = (1, 255, 65535)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any picture to upright 8-bit RGB, with transparency over white. Raises OptionsError like `to_8_bit`."""
    picture = to_8_bit(image)
    if picture.mode == "RGB":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")


def to_mask(image: Image.Image) -> Image.Image:
    """Converts any picture to an upright 8-bit grey mask: luminance times alpha, so transparent parts stay unpainted.

    Raises OptionsError like `to_8_bit`.
    """
    picture = to_8_bit(image)
    grey = picture.convert("L")
    return grey if picture.mode == "RGB" else ImageChops.multiply(grey, picture.getchannel("A"))


def to_8_bit(image: Image.Image) -> Image.Image:
    """Converts any picture to upright 8 bits per channel: RGBA if it may be transparent, else RGB.

    Raises OptionsError for a 16- or 32-bit picture with an ambiguous value range.
    """
    image = upright(image)
    if image.mode.startswith(("I", "F")):
        return _from_numbers(image, _white_of(np.asarray(image)))
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no direct conversion to RGBA
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _from_numbers(image: Image.Image, white: int) -> Image.Image:
    """Converts a grey picture whose value for white is known; a PNG may define one value as transparent."""
    numbers = np.asarray(image)
    scaled = np.multiply(numbers, np.float32(255 / white), dtype=np.float32)
    picture = Image.fromarray(np.rint(scaled, out=scaled).astype(np.uint8)).convert("RGB")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        picture.putalpha(Image.fromarray(np.where(numbers == clear, np.uint8(0), np.uint8(255))))
    return picture


def _white_of(numbers: NDArray[Any]) -> int:
    """Returns the value for white in a 16- or 32-bit picture. Raises OptionsError if this value is ambiguous."""
    lowest, highest = float(numbers.min()), float(numbers.max())  # NaN if any value is
    bits = numbers.dtype.itemsize * 8
    if bits == 16 and (highest > 255 or highest == 0):  # values in between would look black
        return 65535
    for white in WHITES_OF_32_BIT if bits == 32 else ():
        if 0 <= lowest and highest <= white and (white == 1 or highest > white / 2):
            return white
    raise OptionsError(
        f"A picture holds {bits}-bit values from {lowest:g} to {highest:g}, and the value for white is unknown; "
        "save it as 8 bit."
    )
