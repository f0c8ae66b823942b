"""Counts consecutively numbered layers; a gap is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modules.core.errors import ModelFileError

_DIGITS = 6  # maximum number of digits in a block or layer number


def count_numbered(names: Iterable[str], pattern: str) -> int:
    """Counts the distinct numbers matched by `pattern`. Raises ModelFileError unless these are 0, 1, 2, ..."""
    found = {match[1] for name in names if (match := re.match(pattern, name))}
    for place in range(len(found)):
        if str(place) not in found:
            example = max(found, key=len)[:_DIGITS]
            raise ModelFileError(
                f"The layers of this file have a gap in their numbers: number {place} is missing, but {example} exists."
            )
    return len(found)
