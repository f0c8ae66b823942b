"""The labelled sheet of an X/Y grid."""

from __future__ import annotations

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions, HiresOptions
from modules.tasks.axes import grid_cells, read_axis
from modules.tasks.grid import SheetLayout, check_sheet, paste_grid


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


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (GenerationOptions(prompt="x", width=2048, height=2048), "1-30"),
        (GenerationOptions(prompt="x", width=1024, height=1024, hires=HiresOptions(scale=2)), "1-30"),
        (GenerationOptions(prompt="x", width=64, height=64, hires=HiresOptions(width=8192, height=8192)), "1, 2"),
    ],
)
def test_a_sheet_that_would_be_too_large_is_refused_before_anything_runs(
    options: GenerationOptions, values: str
) -> None:
    with pytest.raises(OptionsError, match="at most 100 megapixels"):
        across = read_axis("steps", values)
        check_sheet(grid_cells(options, across, None), across, None)


def test_one_large_cell_among_small_ones_counts() -> None:
    small = GenerationOptions(prompt="x", width=64, height=64)
    for longest in (1024, 8192):
        across, down = read_axis("width", f"64, {longest}"), read_axis("height", f"64, {longest}")
        cells = grid_cells(small, across, down)
        if longest == 1024:
            check_sheet(cells, across, down)
        else:
            with pytest.raises(OptionsError, match="16"):
                check_sheet(cells, across, down)


def test_the_size_that_is_checked_is_that_of_the_sheet() -> None:
    across, down = read_axis("steps", "5, 6, 7"), read_axis("negative_prompt", "a long label | b")
    sheet = paste_grid([Image.new("RGB", (64, 48))] * 6, across, down)
    assert SheetLayout.of([(64, 48)] * 6, across, down).size == sheet.size
