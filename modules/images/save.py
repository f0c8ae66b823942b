"""Saves pictures with their generation text, under names that never collide and without leaving partial files."""

from __future__ import annotations

import errno
import io
import os
import re
import zlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import OptionsError, OutputError, quoted
from modules.core.files import write_new
from modules.images.metadata import PNG_KEY, parameters_of
from modules.images.open import opened

# Looks for runs of equal bytes, not for repeated texts: Pillow's filters leave few of those in a photo. That takes half
# the time of level 4 and a quarter of Pillow's default, for up to a tenth more bytes (flat drawings: a third more).
COMPRESSION = {"compress_level": 4, "compress_type": zlib.Z_RLE}
_NUMBERED = re.compile(r"([0-9]{1,9})-")
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def save_png(
    image: Image.Image, folder: str | Path, seed: int, text: str = "", others: Mapping[str, str] | None = None
) -> Path:
    """Writes `folder/<date>/NNNNN-<seed>.png` with the generation text and `others` inside; returns the path."""
    return save_encoded(encode_png(image, text, others), folder, seed)


def save_encoded(data: bytes, folder: str | Path, seed: int) -> Path:
    """Does the same with a picture that `encode_png` has made."""
    day = Path(folder) / date.today().isoformat()
    try:
        day.mkdir(parents=True, exist_ok=True)
        number = _last_number(day) + 1
        return write_new(day, data, lambda attempt: f"{number + attempt:05d}-{seed}.png")
    except OSError as error:
        raise OutputError(_explain(error, day)) from error


def read_parameters(path: str | Path) -> str:
    """Reads the generation text inside a picture file from this program or A1111."""
    with opened(path) as image:
        image.load()  # text may follow the pixels, and text from an incomplete picture is not reliable
        text = parameters_of(image)
    if text is None:
        raise OptionsError(
            f"{quoted(path)} holds no generation text; the program that made or rewrote it leaves the text out."
        )
    return text


def encode_png(image: Image.Image, text: str, others: Mapping[str, str] | None = None) -> bytes:
    """Returns the bytes of a PNG with the generation text and `others`, by name, inside."""
    info = PngInfo()
    for name, value in {**(others or {}), **({PNG_KEY: text} if text else {})}.items():
        # A lone surrogate (from an argument with invalid UTF-8) cannot be stored, but the picture must not be lost.
        info.add_text(name, value.encode("utf-8", "replace").decode("utf-8"))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, **COMPRESSION)
    return buffer.getvalue()


def _last_number(day: Path) -> int:
    """Returns the highest picture number in the folder; files with longer numbers come from elsewhere."""
    matches = (_NUMBERED.match(name) for name in os.listdir(day))
    return max((int(match.group(1)) for match in matches if match), default=0)


def _explain(error: OSError, day: Path) -> str:
    if error.errno in _NO_SPACE:
        return f"The disk is full: the picture could not be written to {day}; free some space or use --output-dir."
    if error.errno in _NO_PERMISSION:
        return f"No permission to write to {day}; choose another folder with --output-dir."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{day} cannot be a folder because a file is in the way; choose another with --output-dir."
    return f"The picture could not be written to {day} ({error.strerror or error}); choose another with --output-dir."
