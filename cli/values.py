"""Parses option values: a number, a path, or one of several names. An invalid value gets one short reason."""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules.core.errors import LONGEST_QUOTE, OptionsError, quoted
from modules.core.typed import LARGEST_NUMBER, Unreadable, readable_path

LONGEST_NUMBER = 400  # characters; Python's own limit is a few thousand digits
LAST_PORT = 65535
SIDES = ("left", "top", "right", "bottom")


def whole(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d+\s*", text):
        kind = "a whole number" if re.search(r"\d", text) else "a number"
        raise ArgumentTypeError(f"{quoted(text)} is not {kind}")
    if len(text) > LONGEST_NUMBER or abs(int(text)) > LARGEST_NUMBER:
        raise ArgumentTypeError(f"{quoted(text)} is out of range")
    return int(text)


def number(text: str) -> float:
    try:
        return float(text) if len(text) <= LONGEST_NUMBER else float("inf")
    except ValueError:
        raise ArgumentTypeError(f"{quoted(text)} is not a number") from None


def path(text: str) -> Path:
    """Reads any path that the system can look up, existing or not."""
    if not text:
        raise ArgumentTypeError("the path is empty: give the name of a file or folder")
    try:
        found = readable_path(text, "path")
    except Unreadable as error:
        raise ArgumentTypeError(str(error).removeprefix("path: ")) from None
    try:
        os.lstat(found)
    except OSError as error:  # missing or inaccessible, which is reported when the file is opened
        if error.errno == errno.ENAMETOOLONG:
            raise ArgumentTypeError(f"{quoted(text)} is longer than this system allows for a path") from None
    return found


def sides(text: str) -> tuple[int, ...]:
    """Reads "left=64,top=8" as the pixels to the left, top, right and bottom."""
    found = dict.fromkeys(SIDES, 0)
    for part in text.split(","):
        name, _, pixels = part.strip().partition("=")
        if name not in found or not pixels:
            raise ArgumentTypeError(
                f"{quoted(part)} is not a side; write SIDE=PIXELS with {either(SIDES)}, for example left=64,right=64"
            )
        found[name] = whole(pixels)
    return tuple(found.values())


def read_tuning_seconds(text: str) -> float:
    """Reads the value of --stable-fast-tune. Raises OptionsError if it is not a time in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise OptionsError(f"--stable-fast-tune {text[:LONGEST_QUOTE]}: give seconds, for example 30.")
    return seconds


def port(text: str) -> int:
    value = whole(text)
    if not 1 <= value <= LAST_PORT:
        raise ArgumentTypeError(f"{value} is not a port: choose one from 1 to {LAST_PORT}")
    return value


def either(names: Sequence[str]) -> str:
    """Joins names as "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def one_of(names: Sequence[str]) -> dict[str, Any]:
    """Returns keyword arguments for `add_argument` that accept one of these names; errors suggest the nearest name."""

    def read(text: str) -> str:
        if text in names:
            return text
        near = difflib.get_close_matches(text.lower(), names, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise ArgumentTypeError(f"{quoted(text)} is not a valid value; choose {either(names)}{meant}")

    return {"type": read, "metavar": f"{{{','.join(names)}}}"}
