"""The kinds of tasks and their options, as plain data that can be pickled and sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from modules.controlnet.names import PREPROCESSORS
from modules.core.errors import OptionsError
from modules.core.sizes import MAX_SIZE
from modules.generation.option_table import check_choice, check_range
from modules.generation.options import GenerationOptions, check_pixel_method
from modules.tasks.axes import Axis


@dataclass(frozen=True, kw_only=True)
class MakePictures:
    """All pictures of one request."""

    options: GenerationOptions


@dataclass(frozen=True, kw_only=True)
class Compare:
    """The request's first picture, with and without Stable-Fast."""

    options: GenerationOptions


@dataclass(frozen=True, kw_only=True)
class MakeGrid:
    """A sheet with a picture for each value of `across` or, if `down` is given, for each pair of values."""

    options: GenerationOptions
    across: Axis
    down: Axis | None = None


@dataclass(frozen=True, kw_only=True)
class Enlarge:
    """Given pictures at another size: `scale` times as large or, with `width` and `height`, of this size in pixels.

    With `crop`, what does not fit the size's shape is cut off; else the picture keeps its shape and covers the size.
    `method` is "lanczos" or an upscaler's name.
    """

    images: tuple[Path, ...]
    scale: float = 2.0
    width: int | None = None
    height: int | None = None
    crop: bool = True
    method: str = "lanczos"

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 0.1, 16.0)
        if (self.width is None) != (self.height is None):
            raise OptionsError("A target size needs both a width and a height; give the other one too.")
        if self.width is not None and self.height is not None:
            check_sides(self.width, self.height)
        check_pixel_method(self.method)

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size of a picture that is `size` now. Raises OptionsError if it would be too large."""
        if self.width is None or self.height is None:
            factor = self.scale
        elif self.crop:
            return self.width, self.height
        else:
            factor = max(self.width / size[0], self.height / size[1])
        width, height = (max(1, round(side * factor)) for side in size)
        check_sides(width, height)
        return width, height

    @property
    def told(self) -> dict[str, str]:
        """Returns what A1111 writes into an enlarged picture."""
        if self.width is None:
            size = {"Postprocess upscale by": f"{self.scale:g}"}
        else:
            size = {"Postprocess upscale to": f"{self.width}x{self.height}"}
            size |= {"Postprocess crop to": f"{self.width}x{self.height}"} if self.crop else {}
        return {**size, "Postprocess upscaler": PurePath(self.method).name}


@dataclass(frozen=True, kw_only=True)
class DrawHint:
    """A given picture as a ControlNet sees it, at this size in pixels."""

    image: Path
    width: int
    height: int
    preprocessor: str

    def __post_init__(self) -> None:
        check_choice("ControlNet preprocessor", self.preprocessor, PREPROCESSORS)
        check_sides(self.width, self.height)


def check_sides(width: int, height: int) -> None:
    """Raises OptionsError for a size that no picture can have."""
    for name, side in (("width", width), ("height", height)):
        check_range(name, side, 1, MAX_SIZE)


@dataclass(frozen=True, kw_only=True)
class FreeMemory:
    """Releases the loaded models; makes no picture."""


Task = MakePictures | Compare | MakeGrid | Enlarge | DrawHint | FreeMemory
