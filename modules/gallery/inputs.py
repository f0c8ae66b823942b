"""Saves start pictures beside the output, so that they can be found later from the output's metadata."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from modules.core.errors import OutputError
from modules.core.files import write_whole
from modules.core.sizes import SIZE_STEP
from modules.gallery.history import INPUTS
from modules.images.modes import to_8_bit, to_mask, to_rgb
from modules.images.open import check_pixels, open_image

MASK_COLOUR = (255, 64, 160)


@dataclass(frozen=True, kw_only=True)
class KeptDrawing:
    """A picture, its size rounded to multiples of 8, and the mask if anything was painted on the picture."""

    image: Path
    mask: Path | None
    size: tuple[int, int]


def keep_drawing(background: Image.Image, layers: Sequence[Image.Image], folder: Path) -> KeptDrawing:
    """Saves the contents of a mask editor. The mask is white wherever something was painted."""
    mask = painted(layers, background.size)
    width, height = (max(SIZE_STEP * 8, round(side / SIZE_STEP) * SIZE_STEP) for side in background.size)
    return KeptDrawing(
        image=keep_input(to_rgb(background), folder),
        mask=None if mask is None else keep_input(mask, folder),
        size=(width, height),
    )


def painted(layers: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image | None:
    """Returns a grey picture of this size, white where any layer covers it; None if nothing is painted."""
    mask = Image.new("L", size)
    for layer in layers:
        cover = layer.convert("RGBA").getchannel("A")
        mask = ImageChops.lighter(mask, cover if cover.size == size else cover.resize(size))
    return mask if mask.getbbox() else None


def mask_layer(mask: Path) -> Image.Image:
    """Loads a mask file as a layer for the editor. Raises OptionsError if the file is unreadable."""
    cover = to_mask(open_image(mask))
    layer = Image.new("RGBA", cover.size, (*MASK_COLOUR, 255))
    layer.putalpha(cover)
    return layer


def keep_file(path: Path, folder: Path) -> Path:
    """Saves an upright 8-bit copy of a picture file. Raises OptionsError if the file is unreadable."""
    if os.path.realpath(path.parent) == os.path.realpath(folder / INPUTS):
        return path
    return keep_input(to_8_bit(open_image(path)), folder)


def keep_input(image: Image.Image, folder: Path) -> Path:
    """Writes `<folder>/inputs/<hash>.png`, unless that file already exists."""
    check_pixels(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    path = folder / INPUTS / f"{hashlib.sha256(data).hexdigest()[:16]}.png"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
    except OSError as error:
        raise OutputError(f"The picture to start from cannot be kept in {path.parent} ({error.strerror}).") from error
    return path
