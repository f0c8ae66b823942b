"""Limits on picture sizes, in pixels, and two such numbers in one text (no torch)."""

from __future__ import annotations

import re

from modules.core.errors import OptionsError, quoted

SIZE_STEP = 8  # factor by which the autoencoder shrinks a side
MIN_SIZE, MAX_SIZE = 64, 8192
LARGEST_ORIGINAL = 99_999  # side of the largest photograph that SDXL can be told of


def read_original_size(text: str | None) -> tuple[int, int] | None:
    """Reads a width and a height such as 1024x768. Raises OptionsError."""
    return _read_pair("original size", text, "[xX]", 1, "1024x768")


def read_crop(text: str | None) -> tuple[int, int] | None:
    """Reads the x and y of a corner such as 0,128. Raises OptionsError."""
    return _read_pair("crop", text, ",", 0, "0,128")


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
