"""The mask of a start picture: from a file, from what is near a colour, or from both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.generation.image_to_image import open_source
from modules.generation.metadata.write import from_parameters
from modules.generation.options import InitImage, TiledOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests.generation.test_text_to_image import make, pixels

COLOUR, TOLERANCE = (85, 105, 202), 60


@pytest.fixture
def by_colour(photo: Path) -> InitImage:
    return InitImage(image=photo, mask_colour="5569CA", mask_tolerance=TOLERANCE, mask_blur=0, denoise=0.9)


def near(photo: Path) -> np.ndarray:
    """Which pixels are near the colour, counted one by one."""
    image = Image.open(photo).convert("RGB")
    rows = [[image.getpixel((x, y)) for x in range(image.width)] for y in range(image.height)]
    return np.array([[all(abs(a - b) <= TOLERANCE for a, b in zip(p, COLOUR, strict=True)) for p in r] for r in rows])


def mask_in(init: InitImage) -> np.ndarray:
    mask = open_source(init).mask
    assert mask is not None
    return np.asarray(mask) == 255


def test_a_picture_masked_by_colour_is_that_of_the_same_mask_in_a_file(
    session: Session, by_colour: InitImage, photo: Path
) -> None:
    inside = near(photo)
    assert 0.02 < inside.mean() < 0.9
    Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(photo.with_name("same.png"))
    file = replace(by_colour, mask=photo.with_name("same.png"), mask_colour=None)
    (made,), (expected,) = make(session, init=by_colour), make(session, init=file)
    assert (pixels(made) == pixels(expected)).all()
    assert (pixels(made) == np.asarray(Image.open(photo)))[~inside].all()
    again = from_parameters(made.parameters, places=[photo.parent])
    assert again.init == by_colour and by_colour.mask_colour == "#5569ca"
    assert (pixels(next(iter(generate(again, session)))) == pixels(made)).all()


def test_file_and_colour_work_together(by_colour: InitImage, photo: Path, mask: Path) -> None:
    both = near(photo) | (np.asarray(Image.open(mask)) > 0)
    assert (mask_in(replace(by_colour, mask=mask)) == both).all()
    assert (mask_in(replace(by_colour, mask=mask, mask_invert=True)) == ~both).all()


def test_a_colour_that_is_nowhere_is_a_sentence(session: Session, by_colour: InitImage) -> None:
    with pytest.raises(OptionsError, match=r"Nothing in photo.png is near the colour #00ff01: .* above 0\."):
        make(session, init=replace(by_colour, mask_colour="00ff01", mask_tolerance=0))


def test_it_counts_as_a_mask(session: Session, by_colour: InitImage) -> None:
    with pytest.raises(OptionsError, match="mask of its own"):
        make(session, init=replace(by_colour, outpaint=(8, 0, 0, 0)))
    with pytest.raises(OptionsError, match="whole picture"):
        make(session, init=by_colour, tiled=TiledOptions())
