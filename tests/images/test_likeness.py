"""PSNR by its definition, and SSIM by scipy's blur."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from modules.images.likeness import difference, structural_similarity


def picture(seed: int, side: int = 40) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
    return Image.fromarray(values.astype(np.uint8)).resize((side + 8, side), Image.Resampling.BICUBIC)


def blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return gaussian_filter(values, 1.5, radius=5)[5:-5, 5:-5]


def by_definition(first: Image.Image, second: Image.Image) -> float:
    x, y = (np.asarray(each.convert("L"), dtype=np.float64) for each in (first, second))
    a, b = blurred(x), blurred(y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance, squares = blurred(x * y) - a * b, blurred(x * x) - a * a + blurred(y * y) - b * b
    return float(np.mean((2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (squares + c2))))


def test_difference_is_the_psnr_by_its_definition() -> None:
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    lighter = Image.new("RGB", (4, 4), (110, 100, 100))
    psnr, largest = difference(grey, lighter)
    assert psnr == pytest.approx(10 * math.log10(255**2 * 3 / 100)) and largest == 10
    assert difference(grey, grey) == (math.inf, 0)


def test_structure_is_that_of_the_definition() -> None:
    first, other = picture(1), picture(2)
    near = Image.blend(first, other, 0.1)
    for second in (near, other):
        assert structural_similarity(first, second) == pytest.approx(by_definition(first, second), abs=1e-9)
    assert structural_similarity(first, first) == 1
    assert structural_similarity(first, near) > 0.9 > structural_similarity(first, other)


def test_a_picture_smaller_than_a_window() -> None:
    small = Image.new("RGB", (4, 3), "red")
    assert structural_similarity(small, small) == pytest.approx(1)
