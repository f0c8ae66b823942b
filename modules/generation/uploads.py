"""Picture files that a program names in a request: which ones it may, and how they become a drawing to start from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError, quoted
from modules.generation.inputs import mask_layer
from modules.generation.options import GenerationOptions
from modules.images.modes import to_rgb
from modules.images.open import open_image


def permitted(path: Path, folders: Iterable[Path]) -> Path:
    """The file, if it lies in one of these folders, links resolved. Nothing is told about any other file, not even
    whether it exists."""
    if not reachable(path, folders):
        given = quoted(path.name)
        raise OptionsError(f"{given} is neither an upload nor a picture in the output folder: upload it first.")
    return path.resolve()


def reachable(path: Path, folders: Iterable[Path]) -> bool:
    try:
        real = path.resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in folders) and real.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
        return False


def out_of_reach(options: GenerationOptions, folder: Path) -> list[Path]:
    """Pictures that a recalled request starts from and that are gone or lie outside of the folder."""
    return [path for path in options.pictures if not reachable(path, [folder])]


def open_drawing(image: Path, mask: Path | None) -> dict[str, Any]:
    """The same as the mask editor gives: the picture, and a layer over it where the mask is white."""
    background = to_rgb(open_image(image))
    if mask is None:
        return {"background": background, "layers": []}
    layer = mask_layer(mask)
    if layer.size != background.size:
        raise OptionsError(
            f"The mask is {layer.width}x{layer.height} but the picture is {background.width}x{background.height}: "
            "make them the same size."
        )
    return {"background": background, "layers": [layer]}
