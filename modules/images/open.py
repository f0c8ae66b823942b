"""The one reader of picture files: few formats, sizes from the header, every failure one sentence (no torch)."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from modules.core.errors import OptionsError, quoted

# Never all that Pillow knows: an EPS named .png would start Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 64_000_000
FORMAT_WORDS = "use PNG, JPEG, WebP, GIF, BMP or TIFF"
# What Pillow raises for damaged files, as found by changing good ones at random.
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
# How much larger a pixel is in memory than in a PNG of few bits, which its transparent value is counted in.
FEW_BITS = {"1": 255, "L;2": 85, "L;4": 17}


def open_image(path: str | Path) -> Image.Image:
    """The first picture of a file, whole, in memory and upright as its EXIF says; a damaged one is told here and not
    in the middle of a run.

    Raises OptionsError with one sentence for a file that is missing, damaged, too large or of another format.
    """
    with opened(path) as image:
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """A copy turned as its EXIF says. A damaged EXIF says nothing, as in other programs, and is left out."""
    try:
        turned = ImageOps.exif_transpose(image)
    except DAMAGE:
        turned = image.copy()
    for name in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):
        turned.info.pop(name, None)
    return turned


def check_header(path: str | Path) -> None:
    """Raises OptionsError where `open_image` would for the header alone; nothing is decoded."""
    with opened(path):
        pass


@contextmanager
def opened(path: str | Path) -> Generator[Image.Image]:
    """A picture file whose header was read and whose size is within limits; closed at the end, errors in sentences."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about large pictures; our limit comes below
            if Path(path).exists() and not Path(path).is_dir() and not Path(path).is_file():
                raise OptionsError(f"{quoted(path)} is not a regular file; name a picture file.")  # a pipe would block
            with Image.open(path, formats=FORMATS) as image:
                check_pixels(image)
                scale_transparency(image)
                yield image
    except OptionsError:
        raise
    except FileNotFoundError as error:
        raise OptionsError(f"The picture {quoted(path)} does not exist; check its name.") from error
    except IsADirectoryError as error:
        raise OptionsError(f"{quoted(path)} is a folder; name one picture in it.") from error
    except UnidentifiedImageError as error:
        raise OptionsError(f"{quoted(path)} is not a picture file that can be read; {FORMAT_WORDS}.") from error
    except Image.DecompressionBombError as error:
        raise OptionsError(f"The picture {quoted(path)} is too large ({error}).") from error
    except DAMAGE as error:
        reason = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        raise OptionsError(f"The picture {quoted(path)} is damaged or cannot be read ({reason[:200]}).") from error


def check_pixels(image: Image.Image) -> None:
    """Raises OptionsError for more pixels than are taken."""
    if image.width * image.height > MOST_PIXELS:
        raise OptionsError(
            f"The picture is {image.width}x{image.height}; at most {MOST_PIXELS // 10**6} megapixels are taken."
        )


def scale_transparency(image: Image.Image) -> None:
    """Pillow widens pixels of 1, 2, 4 and 16 bits to bytes, but leaves the transparent value as the file counts it."""
    key, raw = image.info.get("transparency"), image.tile[0].args if image.tile else ""
    if isinstance(key, int) and isinstance(raw, str) and raw in FEW_BITS:
        image.info["transparency"] = key * FEW_BITS[raw]
    elif isinstance(key, tuple) and max(key) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def allow_only_formats() -> None:
    """Takes all other readers out of Pillow, for a process in which a library opens files on its own (gradio)."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]
