"""Pictures that a request starts from, kept beside the output so that its metadata still finds them later."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from modules.core.errors import OptionsError, OutputError
from modules.generation.history import INPUTS
from modules.generation.options import SIZE_STEP

MOST_PIXELS = 64_000_000
MASK_COLOUR = (255, 64, 160)


@dataclass(frozen=True, kw_only=True)
class KeptDrawing:
    """A picture and, if anything was painted over it, the mask; `size` is the picture's, in multiples of 8."""

    image: Path
    mask: Path | None
    size: tuple[int, int]


def keep_drawing(background: Image.Image, layers: Sequence[Image.Image], folder: Path) -> KeptDrawing:
    """What a mask editor holds: the mask is white wherever something was painted."""
    mask = painted(layers, background.size)
    width, height = (max(SIZE_STEP * 8, round(side / SIZE_STEP) * SIZE_STEP) for side in background.size)
    return KeptDrawing(
        image=keep_input(background, folder),
        mask=None if mask is None else keep_input(mask, folder),
        size=(width, height),
    )


def painted(layers: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image | None:
    """Everything that any layer covers, as a grey picture of this size; None when nothing is painted."""
    mask = Image.new("L", size)
    for layer in layers:
        cover = layer.convert("RGBA").getchannel("A")
        mask = ImageChops.lighter(mask, cover if cover.size == size else cover.resize(size))
    return mask if mask.getbbox() else None


def mask_layer(mask: Path) -> Image.Image:
    """A kept mask as a layer of the editor."""
    with Image.open(mask) as opened:
        cover = opened.convert("L")
    layer = Image.new("RGBA", cover.size, (*MASK_COLOUR, 255))
    layer.putalpha(cover)
    return layer


def keep_file(path: Path, folder: Path) -> Path:
    """A picture file from anywhere, kept as it is seen."""
    from modules.images.convert import open_image, to_rgb

    if path.resolve().parent == (folder / INPUTS).resolve():
        return path
    check_header(path)
    return keep_input(to_rgb(open_image(path)), folder)


def check_header(path: Path) -> None:
    """Refuses by the size in the header, before anything is decoded."""
    try:
        with Image.open(path) as image:
            check_pixels(image)
    except Image.DecompressionBombError as error:
        raise OptionsError(f"The picture {path.name} is too large ({error}).") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise OptionsError(f"{path.name} is not a picture file that can be read; use PNG, JPEG or WebP.") from error


def keep_input(image: Image.Image, folder: Path) -> Path:
    """Writes `<folder>/inputs/<hash>.png`, once for each content."""
    check_pixels(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    path = folder / INPUTS / f"{hashlib.sha256(data).hexdigest()[:16]}.png"
    if not path.exists():
        write_whole(path, data)
    return path


def check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise OptionsError(
            f"The picture is {image.width}x{image.height}; at most {MOST_PIXELS // 10**6} megapixels are taken."
        )


def write_whole(path: Path, data: bytes) -> None:
    """All bytes or nothing under the final name."""
    hidden = path.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(data)
        os.replace(hidden, path)
    except OSError as error:
        raise OutputError(f"The picture to start from cannot be kept in {path.parent} ({error.strerror}).") from error
    finally:
        hidden.unlink(missing_ok=True)
