"""Reads a few picture formats; checks the size in the header and reports errors in one sentence (no torch)."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from modules.core.errors import LONGEST_QUOTE, OptionsError, quoted

# Never allow all of Pillow's formats: an EPS file named .png would run Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 64_000_000
MEGAPIXELS = f"{MOST_PIXELS // 10**6} megapixels"
FORMAT_WORDS = "use PNG, JPEG, WebP, GIF, BMP or TIFF"
# Errors that Pillow raises for damaged files, found by fuzzing valid ones.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)
# Pillow returns the transparent grey or colour on the file's scale, not on the scale of the 8-bit picture.
GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
DEEP_COLOUR = "RGB;16B"

Source = str | Path | BytesIO


def open_image(source: Source, name: str = "") -> Image.Image:
    """Loads a whole picture (or an animation's first frame) upright; messages use `name`, else the file's name.

    Raises OptionsError with one sentence for a file that is missing, damaged, too large or in another format, so that
    the error appears here and not in the middle of a run.
    """
    with opened(source, name) as image:
        clear = _transparent(image)
        image.load()
        if clear is not None:
            image.info["transparency"] = clear
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """Returns a copy rotated by its EXIF data. Damaged EXIF data is ignored and dropped, as in other programs."""
    try:
        turned = ImageOps.exif_transpose(image)
    except DAMAGE:
        turned = image.copy()
    for name in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):
        turned.info.pop(name, None)
    return turned


def check_header(source: Source, name: str = "") -> None:
    """Raises OptionsError if `open_image` would reject the header; does not decode the picture."""
    with opened(source, name):
        pass


@contextmanager
def opened(source: Source, name: str = "") -> Generator[Image.Image]:
    """Opens a picture, checks its header and size, and closes it at the end; reports every error as one sentence."""
    shown = quoted(name or source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large pictures; we check our limit below
            check_regular(source)
            with Image.open(source, formats=FORMATS) as image:
                check_pixels(image, shown)
                yield image
    except OptionsError:
        raise
    except FileNotFoundError as error:
        raise OptionsError(f"The picture {shown} does not exist; check its name.") from error
    except UnidentifiedImageError as error:
        raise OptionsError(f"{shown} is not a picture file that can be read; {FORMAT_WORDS}.") from error
    except Image.DecompressionBombError as error:
        raise OptionsError(f"The picture {shown} is too large; at most {MEGAPIXELS} are allowed.") from error
    except DAMAGE as error:
        reason = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:LONGEST_QUOTE]
        raise OptionsError(f"The picture {shown} is damaged or cannot be read ({reason}).") from error


def check_regular(source: Source) -> None:
    """Raises OptionsError for a folder, a pipe or a device (which might never end), and OSError for a missing file."""
    if isinstance(source, BytesIO):
        return
    mode = os.stat(source).st_mode
    if stat.S_ISDIR(mode):
        raise OptionsError(f"{quoted(source)} is a folder; name one picture in it.")
    if not stat.S_ISREG(mode):
        raise OptionsError(f"{quoted(source)} is not a regular file; {FORMAT_WORDS}.")


def check_pixels(image: Image.Image, shown: str = "") -> None:
    """Raises OptionsError for too many pixels; `shown` is the picture's name in the message."""
    if image.width * image.height > MOST_PIXELS:
        called = f"The picture {shown}".rstrip()
        raise OptionsError(f"{called} is {image.width}x{image.height}; at most {MEGAPIXELS} are allowed.")


def _transparent(image: Image.Image) -> int | tuple[int, ...] | None:
    """Scales a PNG's transparent grey or colour from 2, 4 or 16 bits to 8. Call this before loading the picture."""
    clear = image.info.get("transparency")
    layout = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
    if isinstance(clear, int) and layout in GREY_STEPS:
        return clear * GREY_STEPS[layout]
    if isinstance(clear, tuple) and layout == DEEP_COLOUR:
        return tuple(number >> 8 for number in clear)
    return None
