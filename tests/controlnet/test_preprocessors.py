"""Each preprocessor draws what its name says: lines where lines are, edges where edges are, colours that stay."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from modules.controlnet.names import PREPROCESSORS
from modules.controlnet.preprocessors import FUNCTIONS, canny, is_edge_map

SIZE, CENTRE, RADIUS = 128, 64, 40
# Distance of each pixel from the circle's edge.
DISTANCE = np.abs(np.hypot(*(np.indices((SIZE, SIZE)) - CENTRE)) - RADIUS)
CIRCLE_BOX = (CENTRE - RADIUS, CENTRE - RADIUS, CENTRE + RADIUS, CENTRE + RADIUS)


def disc() -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE), "white")
    ImageDraw.Draw(image).ellipse(CIRCLE_BOX, fill="black")
    return image


def drawn_circle() -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE), "white")
    ImageDraw.Draw(image).ellipse(CIRCLE_BOX, outline="black", width=2)
    return image


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))


def processed(name: str, image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(FUNCTIONS[name](image), dtype=np.float64)


def test_the_table_of_functions_has_the_names_that_users_may_give() -> None:
    assert tuple(FUNCTIONS) == PREPROCESSORS


@pytest.mark.parametrize("name", PREPROCESSORS)
@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
def test_size_and_mode_stay(name: str, size: tuple[int, int]) -> None:
    result = FUNCTIONS[name](Image.new("RGB", size, "orange"))
    assert (result.size, result.mode) == (size, "RGB")


@pytest.mark.parametrize(
    ("name", "image", "reach"),
    [("canny", disc(), 2), ("softedge", disc(), 5), ("lineart", drawn_circle(), 3), ("scribble", drawn_circle(), 4)],
)
def test_lines_are_on_the_circle_and_nowhere_else(name: str, image: Image.Image, reach: float) -> None:
    lines = processed(name, image)[..., 0]
    assert lines[DISTANCE > reach].max() == 0
    around = [lines[(DISTANCE < 1.5) & sector].max() for sector in sectors()]
    assert min(around) > 120


def sectors() -> list[NDArray[np.bool_]]:
    """Cuts the picture into twelve slices around the circle's centre."""
    rows, columns = np.indices((SIZE, SIZE)) - CENTRE
    number = ((np.arctan2(rows, columns) / np.pi + 1) * 6).astype(int) % 12
    return [number == sector for sector in range(12)]


def test_softedge_is_as_bright_as_the_edge_is_strong() -> None:
    steps = np.repeat(np.array([0, 40, 200], dtype=np.uint8), 32)
    edges = processed("softedge", Image.fromarray(np.tile(steps, (16, 1))).convert("RGB"))[8, :, 0]
    assert edges[28:36].max() / edges[60:68].max() == pytest.approx(40 / 160, abs=0.03)


def test_lineart_draws_lines_of_usual_strength_half_bright() -> None:
    lines = processed("lineart", drawn_circle())[..., 0]
    assert np.median(lines[lines > 0]) == pytest.approx(127, abs=2)


def test_lineart_and_scribble_ignore_what_is_brighter_than_its_surroundings() -> None:
    image = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(image).line((0, 32, 63, 32), fill="white", width=3)
    for name in ("lineart", "scribble"):
        assert processed(name, image)[31:34].max() == 0


def test_blur_and_tile_keep_the_mean_and_lose_the_noise() -> None:
    image = noise()
    before = np.asarray(image, dtype=np.float64)
    for name in ("blur", "tile"):
        after = processed(name, image)
        assert after.mean((0, 1)) == pytest.approx(before.mean((0, 1)), abs=2)
        assert after.std() < before.std() / 4


def test_tile_keeps_the_mean_of_each_square() -> None:
    halves = Image.new("RGB", (64, 64), "red")
    halves.paste("blue", (32, 0, 64, 64))
    after = processed("tile", halves)
    assert after[:, 4].mean(0) == pytest.approx([255, 0, 0], abs=6)
    assert after[:, 59].mean(0) == pytest.approx([0, 0, 255], abs=6)


def test_grey_is_luma() -> None:
    image = noise()
    luma = np.asarray(image, dtype=np.float64) @ (0.299, 0.587, 0.114)  # ITU-R BT.601
    assert np.abs(processed("grey", image) - luma[..., None]).max() <= 1


def test_an_edge_map_is_told_from_a_picture() -> None:
    photo = Image.linear_gradient("L").convert("RGB")
    assert is_edge_map(canny(noise()))
    assert is_edge_map(canny(photo))
    assert not is_edge_map(photo)
    assert not is_edge_map(noise())
    assert not is_edge_map(ImageOps.invert(canny(photo))), "a drawing on white is none yet"


def test_invert_swaps_black_and_white() -> None:
    image = noise()
    assert (processed("invert", image) == 255 - np.asarray(image, dtype=np.float64)).all()
