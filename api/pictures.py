"""Pictures as base64 text: those of a request become files in its tray, those of a task become text."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path

from modules.core.errors import OptionsError
from modules.gallery.inputs import keep_bytes, keep_input
from modules.gallery.output import OutputFolder
from modules.images.modes import to_8_bit
from modules.images.open import check_header, open_image


def picture_bytes(given: str, name: str) -> io.BytesIO:
    """Decodes a data URL or bare base64. Raises OptionsError for an address or a path, which is never opened."""
    text = given.strip()
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise OptionsError(f"{name} is not a data URL with base64: write data:image/png;base64,...")
    try:
        return io.BytesIO(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise OptionsError(
            f"{name} is not a picture in base64: send its bytes, as addresses and paths are not opened here."
        ) from error


def keep_picture(given: str, name: str, tray: OutputFolder) -> Path:
    """Keeps a request's picture in its tray. Raises OptionsError if it cannot be read."""
    return keep_input(to_8_bit(open_image(picture_bytes(given, name), name)), tray.folder)


def keep_source(given: str, name: str, tray: OutputFolder) -> Path:
    """Keeps a request's picture in its tray as it was sent, with its texts. Raises OptionsError if it is none."""
    data = picture_bytes(given, name)
    check_header(data, name)
    return keep_bytes(data.getvalue(), tray.folder)


def as_base64(path: Path) -> str:
    return in_base64(path.read_bytes())


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
