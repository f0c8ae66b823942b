"""Limits on picture sizes, in pixels, and two such numbers in one text (no torch)."""

from __future__ import annotations

import re
from typing import NamedTuple

from modules.core.errors import OptionsError, quoted, shortened

SIZE_STEP = 8  # factor by which the autoencoder shrinks a side
MIN_SIZE, MAX_SIZE = 64, 8192
LARGEST_ORIGINAL = 99_999  # side of the largest photograph that SDXL can be told of


class Sides(NamedTuple):
    """How far a picture is extended to each side, in pixels."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def read_original_size(text: str | None) -> tuple[int, int] | None:
    """Reads a width and a height such as 1024x768. Raises OptionsError."""
    return _read_pair("original size", text, "[xX]", 1, "1024x768")


def read_crop(text: str | None) -> tuple[int, int] | None:
    """Reads the x and y of a corner such as 0,128. Raises OptionsError."""
    return _read_pair("crop", text, ",", 0, "0,128")


def check_size(name: str, value: int | None) -> None:
    """Raises OptionsError for a side of a picture that cannot be made; None means "left out"."""
    if value is None:
        return
    if not MIN_SIZE <= value <= MAX_SIZE or value % SIZE_STEP:
        nearest = round(min(max(value, MIN_SIZE), MAX_SIZE) / SIZE_STEP) * SIZE_STEP
        raise OptionsError(
            f"{name} {shortened(value)} cannot be used: it must be a multiple of {SIZE_STEP} "
            f"from {MIN_SIZE} to {MAX_SIZE}, for example {nearest}."
        )


def check_sides(sides: tuple[int, ...]) -> None:
    """Raises OptionsError unless a picture can be extended like this: to no side, or to left, top, right and bottom."""
    if sides and (len(sides) != 4 or any(side % SIZE_STEP or not 0 <= side <= MAX_SIZE for side in sides)):
        raise OptionsError(
            f"Outpainting by {', '.join(map(str, sides))} pixels cannot be done: give multiples of {SIZE_STEP} from 0 "
            f"to {MAX_SIZE} for left, top, right and bottom."
        )


def nearest_size(size: tuple[float, float]) -> tuple[int, int]:
    """Returns the width and height in steps of 8 that are nearest to a picture's."""
    width, height = (max(SIZE_STEP, round(side / SIZE_STEP) * SIZE_STEP) for side in size)
    return width, height


def extended_size(size: tuple[int, int], sides: Sides) -> tuple[int, int]:
    """Returns the width and height of the extended picture, both multiples of 8."""
    width, height = (side - side % SIZE_STEP for side in size)
    return width + sides.left + sides.right, height + sides.top + sides.bottom


def _read_pair(name: str, text: str | None, separator: str, least: int, example: str) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(rf"\s*([0-9]{{1,5}})\s*{separator}\s*([0-9]{{1,5}})\s*", text)
    if found is None or min(map(int, found.groups())) < least:
        raise OptionsError(
            f"{name} {quoted(text)} cannot be used: give two numbers of pixels from {least} to {LARGEST_ORIGINAL}, "
            f"for example {example}."
        )
    return int(found[1]), int(found[2])
