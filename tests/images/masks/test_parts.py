"""Dividing a mask: each part keeps its grey levels, and scipy finds the same parts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from modules.core.errors import OptionsError
from modules.images.masks.parts import separate_parts


def test_scipy_finds_the_same_parts() -> None:
    mask = Image.new("L", (203, 150))
    draw = ImageDraw.Draw(mask)
    draw.arc((5, 5, 95, 95), 0, 300, fill=255, width=6)  # not convex
    draw.ellipse((40, 40, 60, 60), fill=130)  # surrounded by the arc, but apart from it
    draw.rectangle((180, 120, 202, 149), fill=255)  # up to the corner
    labels, count = ndimage.label(np.asarray(mask) > 0, np.ones((3, 3)))
    parts = [np.asarray(part) for part in separate_parts(mask)]
    expected = [np.where(labels == number + 1, np.asarray(mask), 0) for number in range(count)]
    assert len(parts) == count == 3
    assert all(any((part == wanted).all() for wanted in expected) for part in parts)


def test_strokes_that_nearly_touch_are_one_part() -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 14, 14))
    mask.paste(255, (18, 0, 30, 14))
    assert len(separate_parts(mask)) == 1


def test_a_black_mask_has_no_parts_and_too_many_are_a_sentence() -> None:
    assert separate_parts(Image.new("L", (64, 64))) == []
    dots = np.zeros((160, 160), dtype=np.uint8)
    dots[::16, ::16] = 255
    with pytest.raises(OptionsError, match="more than 64"):
        separate_parts(Image.fromarray(dots))
