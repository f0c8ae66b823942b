"""The one reader of picture files: few formats, sizes from the header, every failure one sentence (no torch)."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

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
    OverflowError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)


def open_image(path: str | Path) -> Image.Image:
    """A whole picture file in memory, so that a damaged one is told here and not in the middle of a run.

    Raises OptionsError with one sentence for a file that is missing, damaged, too large or of another format.
    """
    with opened(path) as image:
        image.load()
        return image


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
            with Image.open(path, formats=FORMATS) as image:
                check_pixels(image)
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
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OptionsError(f"The picture {quoted(path)} is damaged or cannot be read ({reason}).") from error


def check_pixels(image: Image.Image) -> None:
    """Raises OptionsError for more pixels than are taken."""
    if image.width * image.height > MOST_PIXELS:
        raise OptionsError(
            f"The picture is {image.width}x{image.height}; at most {MOST_PIXELS // 10**6} megapixels are taken."
        )
