"""Reads colours, and writes them (no torch)."""

from __future__ import annotations

import re

from modules.core.errors import OptionsError, quoted

Colour = tuple[int, int, int]  # red, green and blue, 0 to 255
MOST_TOLERANCE = 255


def read_colour(text: str) -> Colour:
    """Reads "#ff0000", or "rgb(255, 0, 0)" as a browser writes it. Raises OptionsError."""
    if found := re.fullmatch(r"\s*#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\s*", text):
        red, green, blue = (int(part, 16) for part in found.groups())
        return red, green, blue
    part = r"\s*(\d{1,3}(?:\.\d*)?)\s*"
    found = re.fullmatch(rf"\s*rgba?\({part},{part},{part}(?:,[\s\d.]+)?\)\s*", text)
    if found is None:
        raise OptionsError(f"{quoted(text)} is not a colour: write it as ff0000.")
    red, green, blue = (min(round(float(part)), 255) for part in found.groups())
    return red, green, blue


def as_hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
