"""Latent methods against float64 loops and closed forms; picture modes against the expected places of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modules.core.errors import OptionsError
from modules.images.methods import LATENT_METHODS
from modules.images.resize import resize_image, resize_latent

SIZES = [((5, 7), (10, 14)), ((6, 4), (9, 5)), ((8, 9), (3, 4)), ((1, 5), (3, 7)), ((4, 4), (4, 4))]


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(seed))


def slerp_loop(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Interpolates one pair of vectors along the arc between them, in float64, straight from the formula."""
    length_a, length_b = math.sqrt(a @ a), math.sqrt(b @ b)
    if length_a == 0 or length_b == 0:
        cosine = 0.0
    else:
        cosine = float(a @ b) / (length_a * length_b)
    if cosine > 1 - 1e-5:
        return a
    if cosine < -(1 - 1e-5):
        return a * (1 - t) + b * t
    angle = math.acos(cosine)
    unit_a = a / length_a if length_a else a
    unit_b = b / length_b if length_b else b
    direction = (math.sin((1 - t) * angle) * unit_a + math.sin(t * angle) * unit_b) / math.sin(angle)
    return direction * (length_a * (1 - t) + length_b * t)


def stretch_row_loop(row: np.ndarray, length: int) -> np.ndarray:
    """[C, w] to [C, length]."""
    old = row.shape[1]
    columns = []
    for i in range(length):
        place = min(max((i + 0.5) * old / length - 0.5, 0.0), old - 1.0)
        left = int(math.floor(place))
        columns.append(slerp_loop(row[:, left], row[:, min(left + 1, old - 1)], place - left))
    return np.stack(columns, axis=1)


def bislerp_loop(latent: np.ndarray, height: int, width: int) -> np.ndarray:
    wide = np.stack([[stretch_row_loop(image[:, y], width) for y in range(image.shape[1])] for image in latent])
    wide = wide.transpose(0, 2, 1, 3)  # [N, h, C, w] -> [N, C, h, w]
    tall = np.stack([[stretch_row_loop(image[:, :, x], height) for x in range(width)] for image in wide])
    return tall.transpose(0, 2, 3, 1)  # [N, w, C, h] -> [N, C, h, w]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bislerp_against_a_float64_loop(old: tuple[int, int], new: tuple[int, int]) -> None:
    latent = noise(*old)
    expected = bislerp_loop(latent.double().numpy(), *new)
    actual = resize_latent(latent, *new, "bislerp").numpy()
    assert np.abs(actual - expected).max() < 2e-5


def test_bislerp_of_equal_opposite_and_zero_vectors() -> None:
    ones, zeros = torch.ones(4), torch.zeros(4)
    for left, right in [(ones, ones), (ones, -ones), (zeros, ones), (zeros, zeros), (ones, 3 * ones)]:
        latent = torch.stack([left, right], dim=1).view(1, 4, 1, 2)
        actual = resize_latent(latent, 1, 4, "bislerp")
        assert torch.isfinite(actual).all()
        expected = bislerp_loop(latent.double().numpy(), 1, 4)
        assert np.abs(actual.numpy() - expected).max() < 1e-5


def test_bislerp_keeps_lengths_where_bilinear_shrinks_them() -> None:
    latent = F.normalize(noise(8, 8), dim=1)
    assert resize_latent(latent, 16, 16, "bislerp").norm(dim=1).sub(1).abs().max() < 1e-4
    assert resize_latent(latent, 16, 16, "bilinear").norm(dim=1).min() < 0.8


def linear_weights(old: int, new: int) -> torch.Tensor:
    """[new, old] matrix of bilinear interpolation with free corners."""
    places = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(0, old - 1)
    return (1 - (places[:, None] - torch.arange(old)[None]).abs()).clamp(min=0)


def area_weights(old: int, new: int) -> torch.Tensor:
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        cells = slice(i * old // new, -(-(i + 1) * old // new))
        weights[i, cells] = 1 / len(range(*cells.indices(old)))
    return weights


def nearest_weights(old: int, new: int) -> torch.Tensor:
    places = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).floor().long().clamp(max=old - 1)
    return F.one_hot(places, old).double()


def cubic_weights(old: int, new: int) -> torch.Tensor:
    """Keys' cubic kernel with a = -0.75 and repeated border cells."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        for cell in range(math.floor(place) - 1, math.floor(place) + 3):
            d = abs(place - cell)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(cell, 0), old - 1)] += near if d <= 1 else far
    return weights


MATRICES = {
    "bilinear": linear_weights,
    "bicubic": cubic_weights,
    "area": area_weights,
    "nearest-exact": nearest_weights,
}


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize(("method", "weights"), MATRICES.items(), ids=MATRICES)
def test_separable_methods_against_their_matrices(method, weights, old, new) -> None:
    latent = noise(*old)
    rows, columns = weights(old[0], new[0]), weights(old[1], new[1])
    expected = torch.einsum("ih,nchw,jw->ncij", rows, latent.double(), columns)
    assert (resize_latent(latent, *new, method).double() - expected).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["bilinear-antialiased", "bicubic-antialiased"])
@pytest.mark.parametrize(("old", "new"), [((12, 16), (5, 7)), ((5, 7), (10, 14))])
def test_antialiased_methods_against_pillow(method: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    latent = noise(*old)
    kind = Image.Resampling.BILINEAR if method.startswith("bilinear") else Image.Resampling.BICUBIC
    pillow = [
        [np.asarray(Image.fromarray(channel.numpy()).resize((new[1], new[0]), kind)) for channel in image]
        for image in latent
    ]
    assert np.abs(resize_latent(latent, *new, method).numpy() - np.array(pillow)).max() < 1e-4


@pytest.mark.parametrize("method", LATENT_METHODS)
def test_type_and_size_are_kept(method: str) -> None:
    resized = resize_latent(noise(4, 6).to(torch.bfloat16), 8, 12, method)
    assert resized.dtype == torch.bfloat16 and resized.shape == (2, 4, 8, 12) and resized.is_contiguous()


@pytest.mark.parametrize("method", LATENT_METHODS)
def test_a_constant_stays_constant(method: str) -> None:
    resized = resize_latent(torch.full((1, 4, 5, 5), 0.7), 8, 11, method)
    assert (resized - 0.7).abs().max() < 1e-5


def test_unknown_names_are_explained() -> None:
    with pytest.raises(OptionsError, match="bislerp"):
        resize_latent(noise(2, 2), 4, 4, "lanczos7")
    with pytest.raises(OptionsError, match="crop"):
        resize_image(Image.new("RGB", (2, 2)), 4, 4, "squeeze")


def halves(width: int, height: int) -> Image.Image:
    """Makes a picture with a red left half and a blue right half."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize("mode", ["stretch", "crop", "fill"])
@pytest.mark.parametrize("size", [(64, 64), (31, 77), (100, 20), (40, 20)])
def test_size_is_exact_and_the_seam_stays_in_the_middle(mode: str, size: tuple[int, int]) -> None:
    resized = resize_image(halves(40, 20), *size, mode)
    assert resized.size == size
    row = np.asarray(resized)[size[1] // 2].astype(int)
    assert row[0, 0] > 250 and row[-1, 2] > 250
    seam = int((row[:, 0] > row[:, 2]).sum())
    assert abs(seam - size[0] / 2) <= 1


def test_crop_keeps_shapes_and_fill_keeps_everything() -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 5, 20))  # a white bar at the left end
    cropped = np.asarray(resize_image(image, 20, 20, "crop"))
    assert cropped.max() < 60  # the ends are cut off
    filled = np.asarray(resize_image(image, 40, 40, "fill"))
    assert filled[:, :4].min() > 200  # the bar continues above and below
    assert filled[:, 7:].max() < 60


def test_of_a_very_long_picture_only_the_middle_is_enlarged() -> None:
    """The whole picture would have 10^13 pixels at a height of 512."""
    assert resize_image(Image.new("L", (40_000_000, 1), 200), 512, 512, "crop").getextrema() == (200, 200)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_fill_works_in_other_modes(mode: str) -> None:
    assert resize_image(Image.new(mode, (4, 2)), 8, 8, "fill").mode == mode


def test_the_same_size_is_left_alone() -> None:
    image = halves(8, 8)
    assert resize_image(image, 8, 8, "crop") is image
