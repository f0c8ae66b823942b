"""Reads typed settings (numbers and sizes) from a picture's text; errors contain a short reason."""

from __future__ import annotations

import re
from collections.abc import Mapping

from modules.core.errors import quoted
from modules.core.typed import Unreadable, number, whole

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}(?:\.0{1,9})?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
_SIZE = re.compile(r"\(?\s*([0-9]{1,6})\s*[xX×,*]\s*([0-9]{1,6})\s*\)?")


class Fields:
    """Settings under A1111's names, which are not case-sensitive.

    The readers return None for a missing setting and raise Unreadable for a value of the wrong type.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name.casefold(): value.strip() for name, value in values.items()}

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._values

    def text(self, *names: str) -> str | None:
        """Returns the first of these settings that exists."""
        return next((self._values[name.casefold()] for name in names if self._values.get(name.casefold())), None)

    def whole(self, *names: str) -> int | None:
        value = self.text(*names)
        if value is None:
            return None
        if not _WHOLE.fullmatch(value):
            raise Unreadable(f"{quoted(value)} is not a whole number that can be used")
        return whole(int(value.partition(".")[0]), names[0])

    def number(self, *names: str) -> float | None:
        value = self.text(*names)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise Unreadable(f"{quoted(value)} is not a number that can be used")
        return number(float(value), names[0])

    def size(self, *names: str) -> tuple[int, int] | None:
        """Returns width and height in pixels."""
        value = self.text(*names)
        if value is None:
            return None
        found = _SIZE.fullmatch(value)
        if not found:
            raise Unreadable(f"{quoted(value)} is not a size such as 512x768")
        return int(found[1]), int(found[2])
