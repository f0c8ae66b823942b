"""Layers are numbered in a row; how many there are is counted here, and a gap is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modules.core.errors import ModelFileError

_DIGITS = 6  # of the number of a block or layer


def count_numbered(names: Iterable[str], pattern: str) -> int:
    """How many different numbers the pattern finds. Raises ModelFileError unless they are 0, 1, 2 ... without a gap."""
    found = {match[1] for name in names if (match := re.match(pattern, name))}
    for place in range(len(found)):
        if str(place) not in found:
            example = max(found, key=len)[:_DIGITS]
            raise ModelFileError(
                f"The layers of this file are not numbered in a row: number {place} is missing, {example} is there."
            )
    return len(found)
