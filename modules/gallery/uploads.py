"""Handles picture files in requests: checks whether they are allowed, and opens them for the editor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from modules.core.errors import OptionsError, quoted
from modules.images.modes import to_mask, to_rgb
from modules.images.open import open_image


def permitted(path: Path, folders: Iterable[Path]) -> Path:
    """Returns the path with links resolved, if the file is in one of these folders.

    Raises OptionsError for any other file; the message does not reveal whether the file exists.
    """
    if not reachable(path, folders):
        given = quoted(path.name)
        raise OptionsError(f"{given} is neither an upload nor a picture in the output folder: upload it first.")
    return path.resolve()


def reachable(path: Path, folders: Iterable[Path]) -> bool:
    """Tells whether this is a file in one of the folders, after resolving links."""
    try:
        real = path.resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in folders) and real.is_file()
    except (OSError, ValueError, RuntimeError):  # an impossible file name or circular links
        return False


def open_drawing(image: Path, mask: Path | None) -> dict[str, Any]:
    """Returns picture and mask in the mask editor's format: a background, and a layer where the mask is white.

    Raises OptionsError if the mask has another size.
    """
    background = to_rgb(open_image(image))
    if mask is None:
        return {"background": background, "layers": []}
    cover = to_mask(open_image(mask))
    if cover.size != background.size:
        raise OptionsError(
            f"The mask is {cover.width}x{cover.height} but the picture is {background.width}x{background.height}: "
            "make them the same size."
        )
    layer = Image.new("RGBA", cover.size)
    layer.putalpha(cover)
    return {"background": background, "layers": [layer]}
