"""Colours as people and browsers write them."""

from __future__ import annotations

import pytest

from modules.core.colours import as_hex, read_colour
from modules.core.errors import OptionsError


@pytest.mark.parametrize("text", ["#ff8000", "FF8000", "rgb(255, 128, 0)", "rgba(255, 127.6, 0, 1)"])
def test_colours_are_read_as_a_browser_writes_them(text: str) -> None:
    assert read_colour(text) == (255, 128, 0) and as_hex(read_colour(text)) == "#ff8000"


@pytest.mark.parametrize("text", ["", "red", "#ff80", "rgb(1, 2)", "rgb(1.2.3, 4, 5)", f"rgb({'9' * 400}, 0, 0)"])
def test_other_words_are_a_sentence(text: str) -> None:
    with pytest.raises(OptionsError, match="not a colour"):
        read_colour(text)
