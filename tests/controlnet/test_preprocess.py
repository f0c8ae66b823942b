"""Hints: size, range and transparency."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from modules.controlnet.preprocess import make_hint


def square(size: int = 96) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).rectangle((24, 24, size - 25, size - 25), fill="red")
    return image


def test_hint_has_the_size_of_the_picture_and_keeps_proportions() -> None:
    image = Image.new("RGB", (200, 100))
    ImageDraw.Draw(image).rectangle((50, 0, 149, 99), fill=(255, 128, 0))  # the middle square
    hint = make_hint(image, 64, 64)
    assert hint.shape == (1, 3, 64, 64)
    assert hint[0, :, 2:-2, 2:-2].flatten(1).mean(1).tolist() == pytest.approx([1.0, 128 / 255, 0.0], abs=1e-3)


def test_canny_hint_is_taken_at_the_final_size() -> None:
    hint = make_hint(square(), 192, 192, "canny")
    assert set(hint.unique().tolist()) == {0.0, 1.0}


def test_transparency_is_black() -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert make_hint(image, 8, 8).max() == 0.0
