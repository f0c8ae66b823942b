"""Hints: size, range, edges, transparency, and the sentence when OpenCV is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modules.controlnet.preprocess import canny, make_hint
from modules.core.errors import OptionsError


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


def test_canny_finds_the_outline_only() -> None:
    pytest.importorskip("cv2")
    edges = np.asarray(canny(square()))[..., 0]
    assert set(np.unique(edges)) == {0, 255}
    ys, xs = np.nonzero(edges)
    on_outline = (np.abs(ys - 24) < 3) | (np.abs(ys - 71) < 3) | (np.abs(xs - 24) < 3) | (np.abs(xs - 71) < 3)
    assert on_outline.all() and len(ys) > 150


def test_canny_hint_is_taken_at_the_final_size() -> None:
    pytest.importorskip("cv2")
    hint = make_hint(square(), 192, 192, "canny")
    assert set(hint.unique().tolist()) == {0.0, 1.0}


def test_transparency_is_black() -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert make_hint(image, 8, 8).max() == 0.0


def test_unknown_preprocessor() -> None:
    with pytest.raises(OptionsError, match="canny"):
        make_hint(square(), 64, 64, "depth")


def test_missing_opencv_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(OptionsError, match="needs the package opencv-python-headless"):
        canny(square())
