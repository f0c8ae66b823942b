"""Fills the marked places of a Markdown page with generated lines.

<!-- numbers: NAME -->
(generated lines)
<!-- end of numbers -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

PLACE = re.compile(r"<!-- numbers: (?P<name>\S+) -->\n(?P<old>.*?)<!-- end of numbers -->", re.DOTALL)
BEGINNING = "<!-- numbers:"

Writer = Callable[[], Sequence[str]]


def filled(text: str, writers: Mapping[str, Writer]) -> str:
    """Rewrites every marked place of the page.

    Raises ValueError for a name without a writer, and for a place without an end.
    """

    def written(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in writers or BEGINNING in place["old"]:
            raise ValueError(f"the place for numbers {name!r} has no writer, or no end")
        return "\n".join([f"<!-- numbers: {name} -->", *writers[name](), "<!-- end of numbers -->"])

    text, count = PLACE.subn(written, text)
    if count != text.count(BEGINNING):
        raise ValueError("a place for numbers has no end, or no name")
    return text


def names_of(text: str) -> list[str]:
    return [place["name"] for place in PLACE.finditer(text)]
