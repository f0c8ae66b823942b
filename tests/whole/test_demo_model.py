"""The shipped demo models follow prompts when used through the app, judged by colour and geometry, not by a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.core.paths import ModelFolders
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, LoraChoice
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tools.demo_model.evaluate_extras import object_mask, style_distance
from tools.demo_model.judging.measure import Pixels, Reading, overlap, read_picture, read_sunset, sharpness

STAR = "a yellow star on a purple background"
NEGATIVE = "lowres, bad anatomy, worst quality, low quality, jpeg artifacts, watermark, blurry"
STEPS = 12  # the default of 20 draws the same objects
Draw = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def draw(demo_checkpoint: Path) -> Draw:
    """draw(prompt, seed, **options) -> picture; equal requests are made only once."""
    session = Session(ModelFolders(demo_checkpoint.parents[2]), device="cpu", dtype="float32")

    @cache
    def picture(prompt: str, seed: int = 1, **changes: object) -> Image.Image:
        values = {"checkpoint": demo_checkpoint.name, "cfg": 4.0, "steps": STEPS} | changes
        options = GenerationOptions(prompt=prompt, seed=seed, **values)  # type: ignore[arg-type]
        (made,) = generate(options, session)
        return made.image

    return picture


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))


def read(picture: Image.Image) -> Reading:
    return read_picture(pixels(picture))


def seen(picture: Image.Image) -> tuple[str, str, str]:
    """Returns colour and shape of the only object, and the background."""
    reading = read(picture)
    assert len(reading.objects) == 1, f"{len(reading.objects)} objects"
    return reading.objects[0].colour, reading.objects[0].shape, reading.background


@pytest.mark.parametrize(
    ("prompt", "wanted", "place"),
    [
        ("a red circle on a blue background", ("red", "circle", "blue"), (0.0, 0.0)),
        ("a small green star in the top left corner on a white background", ("green", "star", "white"), (-0.5, -0.5)),
        ("an orange square on the right on a cyan background", ("orange", "square", "cyan"), (0.5, 0.0)),
        ("a pink heart at the bottom on a black background", ("pink", "heart", "black"), (0.0, 0.5)),
        ("a blue triangle on the left on a yellow background", ("blue", "triangle", "yellow"), (-0.5, 0.0)),
    ],
)
def test_one_object_as_asked(draw: Draw, prompt: str, wanted: tuple[str, str, str], place: tuple[float, float]) -> None:
    picture = draw(prompt)
    assert picture.size == (128, 128), "the native size is the default"
    assert seen(picture) == wanted
    item = read(picture).objects[0]
    assert math.dist((item.x, item.y), place) < 0.3
    assert item.iou > 0.7


@pytest.mark.parametrize(
    ("prompt", "number", "colour", "shape"),
    [
        ("two red hearts on a white background", 2, "red", "heart"),
        ("three yellow circles on a blue background", 3, "yellow", "circle"),
    ],
)
def test_counts(draw: Draw, prompt: str, number: int, colour: str, shape: str) -> None:
    assert [(item.colour, item.shape) for item in read(draw(prompt)).objects] == [(colour, shape)] * number


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sunset_is_warm_above_and_has_its_sun_where_asked(draw: Draw, side: str) -> None:
    reading = read_sunset(pixels(draw(f"a beautiful sunset over the ocean, the sun on the {side}")))
    assert reading.warm_sky and reading.sky_warmer_than_sea and reading.side == side


def test_a_day_is_not_a_sunset(draw: Draw) -> None:
    assert not read_sunset(pixels(draw("a sunny day over the ocean"))).warm_sky


def test_the_seed_decides_the_picture(draw: Draw) -> None:
    assert draw(STAR).tobytes() == draw(STAR, batch=1).tobytes()  # other arguments, same request
    assert draw(STAR).tobytes() != draw(STAR, seed=2).tobytes()


@pytest.mark.parametrize(
    "changes", [{"negative_prompt": NEGATIVE}, {"clip_skip": 2}, {"steps": 10, "sampler": "euler"}]
)
def test_usual_settings_keep_the_colours(draw: Draw, changes: dict[str, object]) -> None:
    colour, _, background = seen(draw(STAR, **changes))
    assert (colour, background) == ("yellow", "purple")


def test_unknown_words_are_harmless(draw: Draw) -> None:
    assert seen(draw(f"{STAR}, trending, by greg, unreal engine")) == ("yellow", "star", "purple")


@pytest.mark.parametrize("style", ["ink", "neon"])
def test_lora_moves_the_style_by_its_strength_and_comes_off(draw: Draw, style: str) -> None:
    plain = draw(STAR)
    half, full = (draw(STAR, loras=(LoraChoice(name=f"demo_{style}", strength=s),)) for s in (0.5, 1.0))
    distances = [style_distance(style, plain, picture) for picture in (plain, half, full)]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.5 * distances[0]
    assert draw(STAR, batch=1, number=1).tobytes() == plain.tobytes()


def test_the_two_loras_are_different_styles(draw: Draw) -> None:
    ink, neon = (pixels(draw(STAR, loras=(LoraChoice(name=f"demo_{style}"),))) for style in ("ink", "neon"))
    assert ink.mean() > 150 and neon.mean() < 80, "cream paper, black night"


@pytest.fixture
def heart_edges(draw: Draw, tmp_path: Path) -> tuple[Path, Pixels]:
    """Draws a heart in a corner, for canny; no prompt in the tests mentions a heart in a corner."""
    picture = draw("a black heart in the bottom right corner on a white background")
    picture.save(tmp_path / "heart.png")
    return tmp_path / "heart.png", pixels(picture)


def test_controlnet_follows_the_edges_not_the_prompt(draw: Draw, heart_edges: tuple[Path, Pixels]) -> None:
    path, given = heart_edges
    control = ControlChoice(name="demo_canny", image=path, preprocessor="canny")
    picture = draw("a red circle on a blue background", controls=(control,))
    assert overlap(object_mask(given), object_mask(pixels(picture))) > 0.8
    assert seen(picture) == ("red", "heart", "blue"), "colours are the prompt's"
    free = draw("a red circle on a blue background")
    assert overlap(object_mask(given), object_mask(pixels(free))) < 0.4


def test_hires_is_sharper_than_a_resize_and_keeps_the_picture(draw: Draw) -> None:
    prompt = "a red circle on a blue background"
    small, large = draw(prompt), draw(prompt, hires=HiresOptions(scale=2.0))
    assert large.size == (256, 256)
    resized = small.resize(large.size, Image.Resampling.LANCZOS)
    assert sharpness(pixels(large)) > 1.15 * sharpness(pixels(resized))
    assert seen(large) == seen(small) == ("red", "circle", "blue")
    assert overlap(object_mask(pixels(large)), object_mask(pixels(resized))) > 0.8


def test_the_embedding_means_its_emblem(draw: Draw) -> None:
    assert seen(draw("a picture of demo_emblem")) == ("yellow", "star", "purple")
    assert read(draw("a picture of something")).background != "purple"


def test_stable_fast_draws_the_same_picture(draw: Draw) -> None:
    plain, fast = (pixels(picture).astype(np.float64) for picture in (draw(STAR), draw(STAR, stable_fast="full")))
    error = ((plain - fast) ** 2).mean()
    assert error < 255**2 / 10**5, "PSNR of at least 50 dB"
