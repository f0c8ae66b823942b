"""Saves start pictures beside the output, so that they can be found later from the output's metadata."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from modules.core.errors import OptionsError, OutputError
from modules.core.files import write_whole
from modules.core.sizes import SIZE_STEP
from modules.gallery.history import INPUTS
from modules.images.modes import to_8_bit, to_mask, to_rgb
from modules.images.open import check_pixels, open_image

PAINTED_ALPHA = 32  # a layer counts as painted above this; below is the soft rim of the translucent brush


@dataclass(frozen=True, kw_only=True)
class KeptDrawing:
    """A picture, its size rounded to multiples of 8, and the mask if anything was painted on the picture."""

    image: Path
    mask: Path | None
    size: tuple[int, int]


def keep_drawing(
    background: Image.Image, layers: Sequence[Image.Image], folder: Path, mask_file: Path | str | None = None
) -> KeptDrawing:
    """Saves the contents of a mask editor. The mask is white where something was painted or `mask_file` is white.

    The file is scaled to the picture's size and keeps its grey levels. Raises OptionsError if it cannot be used.
    """
    mask = painted(layers, background.size)
    if mask_file:
        given = given_mask(Path(mask_file), background.size)
        mask = given if mask is None else ImageChops.lighter(mask, given)
    width, height = (max(SIZE_STEP * 8, round(side / SIZE_STEP) * SIZE_STEP) for side in background.size)
    return KeptDrawing(
        image=keep_input(to_rgb(background), folder),
        mask=None if mask is None else keep_input(mask, folder),
        size=(width, height),
    )


def painted(layers: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image | None:
    """Returns a picture of this size, white where any layer covers it, else black; None if nothing is painted."""
    mask = Image.new("L", size)
    for layer in layers:
        cover = layer.convert("RGBA").getchannel("A")
        mask = ImageChops.lighter(mask, cover if cover.size == size else cover.resize(size))
    mask = mask.point([255 if alpha > PAINTED_ALPHA else 0 for alpha in range(256)])
    return mask if mask.getbbox() else None


def given_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """Opens a mask file at this size. Raises OptionsError if it is unreadable, or black everywhere."""
    mask = to_mask(open_image(path))
    if mask.getbbox() is None:
        raise OptionsError("The mask from the file is black everywhere: make white what is to be repainted.")
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BICUBIC)


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
    return keep_bytes(buffer.getvalue(), folder)


def keep_bytes(data: bytes, folder: Path) -> Path:
    """Writes a picture file's bytes to `<folder>/inputs/<hash>.png`, unless that file already exists."""
    path = folder / INPUTS / f"{hashlib.sha256(data).hexdigest()[:16]}.png"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
    except OSError as error:
        raise OutputError(f"The picture to start from cannot be kept in {path.parent} ({error.strerror}).") from error
    return path
