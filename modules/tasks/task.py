"""The kinds of tasks and their options, as plain data that can be pickled and sent anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from modules.generation.options import GenerationOptions
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
class FreeMemory:
    """Releases the loaded models; makes no picture."""


Task = MakePictures | Compare | MakeGrid | FreeMemory
