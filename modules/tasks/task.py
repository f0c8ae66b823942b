"""What can be asked for, as plain data: the kind of task and its options. It may be pickled and sent anywhere."""

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
    """The request's first picture, without Stable-Fast and with it."""

    options: GenerationOptions


@dataclass(frozen=True, kw_only=True)
class MakeGrid:
    """One sheet with a picture for each value of `across`, and with `down` for each pair of values."""

    options: GenerationOptions
    across: Axis
    down: Axis | None = None


@dataclass(frozen=True, kw_only=True)
class FreeMemory:
    """Lets the loaded models go; makes no picture."""


Task = MakePictures | Compare | MakeGrid | FreeMemory
