"""Extending a picture: the old pixels stay, the new ones continue them, and the mask fades over the seam."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.core.sizes import Sides, check_sides, extended_size
from modules.images.masks.outpaint import extended


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 255, (9, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((67, 72), Image.Resampling.BICUBIC)


def test_the_old_picture_lies_at_its_place_bit_for_bit(picture: Image.Image) -> None:
    wide, mask = extended(picture, Sides(left=16, top=8, bottom=24), feather=0)
    assert wide.size == mask.size == extended_size(picture.size, Sides(16, 8, 0, 24)) == (80, 104)
    assert (np.asarray(wide)[8:80, 16:] == np.asarray(picture)[:, :64]).all()
    expected = np.full((104, 80), 255)
    expected[8:80, 16:] = 0
    assert (np.asarray(mask) == expected).all()


def test_the_seam_fades_into_the_old_picture_on_extended_sides_only(picture: Image.Image) -> None:
    _, mask = extended(picture, Sides(right=8), feather=15)
    row = np.asarray(mask, dtype=int)[40]
    assert (row[64:] == 255).all() and (row[:49] == 0).all()
    assert (np.diff(row[48:65]) > 0).all(), "each pixel of the seam is whiter than the one before it"
    assert (np.asarray(mask) == row).all(), "nothing fades at the top and the bottom"


def test_the_new_area_continues_the_border() -> None:
    halves = Image.new("RGB", (64, 64), "red")
    halves.paste((0, 0, 255), (0, 32, 64, 64))
    new = np.asarray(extended(halves, Sides(right=32), feather=0)[0], dtype=int)[:, 64:]
    assert np.abs(new[0] - [255, 0, 0]).max() < 3 and np.abs(new[-1] - [0, 0, 255]).max() < 3
    assert 60 < new[32, :, 0].mean() < 195, "the border between the two is blurred"


@pytest.mark.parametrize("sides", [(1, 0, 0, 0), (8, 8), (-8, 0, 0, 0), (8, 0, 0, 80000)])
def test_other_sides_are_a_sentence(sides: tuple[int, ...]) -> None:
    with pytest.raises(OptionsError, match="multiples of 8"):
        check_sides(sides)
