"""X/Y grids: reading values, the requests they mean, the labelled sheet."""

from __future__ import annotations

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions, HiresOptions
from modules.tasks.grid import Layout, grid_cells, paste_grid, read_axis

OPTIONS = GenerationOptions(prompt="a red circle", seed=1)


def test_values_ranges_and_bars() -> None:
    assert read_axis("steps", "1-3, 8").values == (1, 2, 3, 8)
    assert read_axis("cfg", "4, 7.5").labels() == ["CFG 4", "CFG 7.5"]
    assert read_axis("negative_prompt", "dark, grey | blurry").values == ("dark, grey", "blurry")


def test_cells_go_row_by_row() -> None:
    cells = grid_cells(OPTIONS, read_axis("steps", "5, 6"), read_axis("cfg", "1, 2"))
    assert [(cell.steps, cell.cfg) for cell in cells] == [(5, 1.0), (6, 1.0), (5, 2.0), (6, 2.0)]


def test_prompt_words_are_replaced_and_denoise_finds_its_pass() -> None:
    cells = grid_cells(OPTIONS, read_axis("replace", "red, blue"), None)
    assert [cell.prompt for cell in cells] == ["a red circle", "a blue circle"]
    hires = GenerationOptions(prompt="x", hires=HiresOptions())
    assert [cell.hires.denoise for cell in grid_cells(hires, read_axis("denoise", "0.1, 0.2"), None)] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("across", "values", "down", "more", "words"),
    [
        ("steps", "a", "", "", "not a number"),
        ("steps", " , ", "", "", "no values"),
        ("steps", "1-200", "", "", "too many"),
        ("steps", "1-20", "cfg", "1,2,3,4,5,6", "at most 100"),
        ("steps", "1,2", "steps", "3", "same option"),
        ("steps", "0", "", "", "out of range"),
        ("replace", "green, blue", "", "", "does not hold"),
        ("denoise", "0.5", "", "", "HiresFix"),
        ("nonsense", "1", "", "", "cannot vary"),
        ("sampler", "euler, eulr", "", "", "eulr"),
        ("scheduler", "karras, kars", "", "", "kars"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    across: str, values: str, down: str, more: str, words: str
) -> None:
    with pytest.raises(OptionsError, match=words):
        grid_cells(OPTIONS, read_axis(across, values), read_axis(down, more) if down else None)


def test_the_sheet_holds_every_picture_and_room_for_labels() -> None:
    colours = ["red", "lime", "blue", "white"]
    pictures = [Image.new("RGB", (64, 48), colour) for colour in colours]
    sheet = paste_grid(pictures, read_axis("steps", "5, 6"), read_axis("cfg", "1, 2"))
    counts = {colour: count for count, colour in sheet.getcolors(1 << 16) or []}
    assert counts[(255, 0, 0)] == counts[(0, 255, 0)] == counts[(0, 0, 255)] == 64 * 48
    assert sheet.width > 2 * 64 and sheet.height > 2 * 48


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
        grid_cells(options, read_axis("steps", values), None)


def test_one_large_cell_among_small_ones_counts() -> None:
    small = GenerationOptions(prompt="x", width=64, height=64)
    assert len(grid_cells(small, read_axis("width", "64, 1024"), read_axis("height", "64, 1024"))) == 4
    with pytest.raises(OptionsError, match="16"):
        grid_cells(small, read_axis("width", "64, 8192"), read_axis("height", "64, 8192"))


def test_the_size_that_is_checked_is_that_of_the_sheet() -> None:
    across, down = read_axis("steps", "5, 6, 7"), read_axis("negative_prompt", "a long label | b")
    sheet = paste_grid([Image.new("RGB", (64, 48))] * 6, across, down)
    assert Layout.of([(64, 48)] * 6, across, down).size == sheet.size


def test_a_cell_is_one_picture() -> None:
    """Else two pictures of each cell would push the others out of their places."""
    options = GenerationOptions(prompt="x", number=3, batch=2, hires=HiresOptions(keep_first_pass=True))
    for cell in grid_cells(options, read_axis("steps", "5, 6"), None):
        assert cell.images == 1 and cell.hires is not None and not cell.hires.keep_first_pass
