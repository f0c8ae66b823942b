"""Masking one colour adds to the mask file, which a request then uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.generation.options import GenerationOptions, InitImage
from ui.events.pictures.masking import mask_colour, with_mask_file

RED = "rgba(250, 0, 0, 1)"


@pytest.fixture
def drawing() -> dict[str, Image.Image]:
    picture = Image.new("RGB", (64, 64), "blue")
    picture.paste((255, 10, 0), (8, 8, 24, 24))
    return {"background": picture}


def test_two_colours_are_masked_one_after_the_other(drawing: dict[str, Image.Image], tmp_path: Path) -> None:
    red = mask_colour(drawing, None, RED, 20, tmp_path)["mask_file"]
    assert Image.open(red).getbbox() == (8, 8, 24, 24)
    both = mask_colour(drawing, red, "#0000ff", 0, tmp_path)["mask_file"]
    assert Image.open(both).getextrema() == (255, 255)


def test_what_cannot_be_masked_is_said(drawing: dict[str, Image.Image], tmp_path: Path) -> None:
    assert "no picture yet" in mask_colour({}, None, RED, 20, tmp_path)["init_message"]
    assert "raise the tolerance" in mask_colour(drawing, None, "#00ff00", 20, tmp_path)["init_message"]
    with pytest.raises(OptionsError, match="not a colour"):
        mask_colour(drawing, None, "", 20, tmp_path)


def test_a_mask_by_colour_comes_back_as_a_file(drawing: dict[str, Image.Image], tmp_path: Path) -> None:
    drawing["background"].save(tmp_path / "photo.png")
    init = InitImage(image=tmp_path / "photo.png", mask_colour="fa0000", mask_tolerance=20, mask_invert=True)
    options = GenerationOptions(prompt="a cat", init=init)
    found = with_mask_file(options, [], tmp_path).init
    assert found is not None and found.mask is not None and Image.open(found.mask).getbbox() == (8, 8, 24, 24)
    assert found == replace(init, mask=found.mask, mask_colour=None)
    assert with_mask_file(options, [init.image], tmp_path) == options
