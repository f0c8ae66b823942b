"""Pictures of any mode as 8-bit pictures: one rule for transparency, one for numbers of more than 8 bits (no torch)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from modules.core.errors import OptionsError
from modules.images.open import upright

WHITE = (255, 255, 255, 255)
# 32-bit pictures do not say which number is white. These are in use.
WHITES_OF_32_BIT = (1, 255, 65535)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as upright 8-bit RGB; transparent parts are laid on white. Raises OptionsError as `to_8_bit`."""
    picture = to_8_bit(image)
    if picture.mode == "RGB":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")


def to_mask(image: Image.Image) -> Image.Image:
    """Any picture as an upright 8-bit grey mask: luminance times alpha, so what is transparent is not painted.

    Raises OptionsError as `to_8_bit`.
    """
    picture = to_8_bit(image)
    grey = picture.convert("L")
    return grey if picture.mode == "RGB" else ImageChops.multiply(grey, picture.getchannel("A"))


def to_8_bit(image: Image.Image) -> Image.Image:
    """Any picture upright and with 8 bits a channel: RGBA where it may be transparent, else RGB.

    Raises OptionsError for a 16- or 32-bit picture whose numbers could mean anything.
    """
    image = upright(image)
    if image.mode.startswith(("I", "F")):
        return _from_numbers(image, _white_of(np.asarray(image)))
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no direct way to RGBA
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _from_numbers(image: Image.Image, white: int) -> Image.Image:
    """A grey picture whose number for white is known; a PNG may name one number that is transparent."""
    numbers = np.asarray(image)
    scaled = np.multiply(numbers, np.float32(255 / white), dtype=np.float32)
    picture = Image.fromarray(np.rint(scaled, out=scaled).astype(np.uint8)).convert("RGB")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        picture.putalpha(Image.fromarray(np.where(numbers == clear, np.uint8(0), np.uint8(255))))
    return picture


def _white_of(numbers: NDArray[Any]) -> int:
    """The number that is white in a 16- or 32-bit picture. Raises OptionsError where that is anybody's guess."""
    lowest, highest = float(numbers.min()), float(numbers.max())  # NaN when any is
    bits = numbers.dtype.itemsize * 8
    if bits == 16 and (highest > 255 or highest == 0):  # what lies between would be black to the eye
        return 65535
    for white in WHITES_OF_32_BIT if bits == 32 else ():
        if 0 <= lowest and highest <= white and (white == 1 or highest > white / 2):
            return white
    raise OptionsError(
        f"A picture holds {bits}-bit values from {lowest:g} to {highest:g}, and which of them is white is not known; "
        "save it as 8 bit."
    )
