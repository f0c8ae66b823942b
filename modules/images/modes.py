"""Pictures of every mode as 8-bit RGB or as a mask, upright; the one rule for transparency (no torch).

What is transparent is not painted: a picture lies on white, and a mask is its brightness times its alpha.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modules.core.errors import OptionsError
from modules.images.open import upright

Grey = NDArray[np.uint8]  # [height, width]

WHITE = (255, 255, 255, 255)
REMEDY = "save it with 8 or 16 bits a channel"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as upright 8-bit RGB. Raises OptionsError for numbers that have no brightness of their own."""
    image = upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    alpha = alpha_of(image)
    rgb = opaque(image)
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, WHITE[:3]), Image.fromarray(alpha))


def to_mask(image: Image.Image) -> Image.Image:
    """Any picture as an upright grey one: white where it is bright and opaque. Raises OptionsError as `to_rgb`."""
    image = upright(image)
    grey = np.asarray(opaque(image).convert("L"), dtype=np.float32)
    alpha = alpha_of(image)
    if alpha is not None:
        grey = grey * (alpha.astype(np.float32) / 255)
    return Image.fromarray(grey.round().astype(np.uint8))


def opaque(image: Image.Image) -> Image.Image:
    """The colours as 8-bit RGB, whatever is transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(grey_levels(np.asarray(image), image.mode)).convert("RGB")
    straight = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode))
    plain = straight.copy()
    plain.info.pop("transparency", None)  # Pillow would look for that colour again
    if plain.mode == "P":
        return plain.convert("RGBA").convert("RGB")  # a palette may hold alpha, which is read by itself
    return plain.convert("RGB")


def grey_levels(values: NDArray[np.generic], mode: str) -> Grey:
    """Numbers of more than 8 bits [height, width] as bytes: 16 bits are scaled; of 32 bits the range tells the scale.

    Raises OptionsError where it does not: depths in metres, say, or numbers that are not finite.
    """
    exact = values.astype(np.float64)
    if not bool(np.isfinite(exact).all()):
        raise OptionsError(f"The picture holds values that are not finite numbers; {REMEDY}.")
    low, high = float(exact.min(initial=0)), float(exact.max(initial=0))
    if mode.startswith("I;16"):
        top = 65535.0
    else:
        tops = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
        top = next((top for top in tops if high <= top), 0.0)
    if low < 0 or not top:
        raise OptionsError(f"The picture holds values from {low:g} to {high:g}, whose brightness is unknown; {REMEDY}.")
    return (exact * (255 / top)).round().astype(np.uint8)


def alpha_of(image: Image.Image) -> Grey | None:
    """How opaque each pixel is, [height, width]; None for a picture without transparency."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return np.asarray(image.getchannel(image.getbands()[-1].upper() if image.mode in ("RGBA", "LA", "PA") else "a"))
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return np.asarray(image.convert("RGBA").getchannel("A"))
    key = image.info.get("transparency")
    if key is None:
        return None
    if image.mode == "P":
        table = np.full(256, 255, dtype=np.uint8)
        if isinstance(key, bytes):
            table[: len(key)] = np.frombuffer(key[:256], dtype=np.uint8)
        else:
            table[key] = 0
        return table[np.asarray(image)]
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    same = pixels == np.asarray(key)
    return np.where(same.all(axis=-1) if same.ndim == 3 else same, 0, 255).astype(np.uint8)
