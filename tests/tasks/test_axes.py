"""The axes of grids: parsing of values, and the resulting requests."""

from __future__ import annotations

import pytest

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions, HiresOptions
from modules.tasks.axes import grid_cells, read_axis

OPTIONS = GenerationOptions(prompt="a red circle", seed=1)


def test_values_ranges_and_bars() -> None:
    assert read_axis("steps", "1-3, 8").values == (1, 2, 3, 8)
    assert read_axis("cfg", "4, 7.5").labels() == ["CFG 4", "CFG 7.5"]
    assert read_axis("rescale_cfg", "0, 0.7").labels() == ["CFG rescale 0", "CFG rescale 0.7"]
    assert read_axis("negative_prompt", "dark, grey | blurry").values == ("dark, grey", "blurry")
    assert read_axis("crop", "0,0 | 0,64").values == ("0,0", "0,64")


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
        ("replace", "green, blue", "", "", "does not contain"),
        ("denoise", "0.5", "", "", "HiresFix"),
        ("nonsense", "1", "", "", "cannot vary"),
        ("crop", "0,0, 0,64", "", "", "write [|] between values"),
        ("sampler", "euler, eulr", "", "", "eulr"),
        ("scheduler", "karras, kars", "", "", "kars"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    across: str, values: str, down: str, more: str, words: str
) -> None:
    with pytest.raises(OptionsError, match=words):
        grid_cells(OPTIONS, read_axis(across, values), read_axis(down, more) if down else None)


def test_a_cell_is_one_picture() -> None:
    """Otherwise a second picture in a cell would shift all following cells."""
    options = GenerationOptions(prompt="x", number=3, batch=2, hires=HiresOptions(keep_first_pass=True))
    for cell in grid_cells(options, read_axis("steps", "5, 6"), None):
        assert cell.images == 1 and cell.hires is not None and not cell.hires.keep_first_pass
