"""The labelled sheet of an X/Y grid."""

from __future__ import annotations

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.tasks.axes import read_axis
from modules.tasks.grid import paste_grid


def test_the_sheet_holds_every_picture_and_room_for_labels() -> None:
    colours = ["red", "lime", "blue", "white"]
    pictures = [Image.new("RGB", (64, 48), colour) for colour in colours]
    sheet = paste_grid(pictures, read_axis("steps", "5, 6"), read_axis("cfg", "1, 2"))
    counts = {colour: count for count, colour in sheet.getcolors(1 << 16) or []}
    assert counts[(255, 0, 0)] == counts[(0, 255, 0)] == counts[(0, 0, 255)] == 64 * 48
    assert sheet.width > 2 * 64 and sheet.height > 2 * 48


def test_a_sheet_that_would_be_too_large_is_refused() -> None:
    picture = Image.new("RGB", (4096, 4096))
    with pytest.raises(OptionsError, match="smaller size"):
        paste_grid([picture] * 6, read_axis("steps", "1-6"), None)
