"""Repainting only the part round the mask is image to image with that part, put back into the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modules.core.errors import OptionsError
from modules.generation.metadata.write import from_parameters
from modules.generation.options import ControlChoice, HiresOptions, InitImage
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests import tiny_project
from tests.generation.test_text_to_image import make, pixels

BOX = (40, 32, 104, 104)  # what surrounds the mask by PADDING pixels; 64x72 pixels, so nothing is enlarged
PADDING = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the picture wide.png, its mask, and BOX of both as part.png and part_mask.png."""
    root = tiny_project.project(tmp_path_factory.mktemp("only_masked"))
    noise = np.random.default_rng(1).integers(0, 255, (18, 20, 3), dtype=np.uint8)
    wide = Image.fromarray(noise).resize((160, 144), Image.Resampling.BICUBIC)
    mask = Image.new("L", wide.size)
    ImageDraw.Draw(mask).rectangle((60, 52, 83, 83), fill=255)
    for name, picture in (("wide", wide), ("mask", mask)):
        picture.save(root / f"{name}.png")
    wide.crop(BOX).save(root / "part.png")
    mask.crop(BOX).save(root / "part_mask.png")
    return root


@pytest.fixture(scope="module")
def session(root: Path) -> Iterator[Session]:
    yield tiny_project.session_at(root)


@pytest.fixture
def whole(root: Path) -> InitImage:
    return InitImage(
        image=root / "wide.png", mask=root / "mask.png", mask_blur=0, only_masked=True, mask_padding=PADDING
    )


@pytest.fixture
def part(root: Path) -> InitImage:
    return InitImage(image=root / "part.png", mask=root / "part_mask.png", mask_blur=0)


@pytest.mark.parametrize("content", ["original", "noise"])
def test_the_part_is_what_image_to_image_makes_of_it(
    session: Session, whole: InitImage, part: InitImage, root: Path, content: str
) -> None:
    pictures = make(session, init=replace(whole, mask_content=content), batch=2)
    expected = make(session, init=replace(part, mask_content=content), batch=2)
    before = np.asarray(Image.open(root / "wide.png"), dtype=np.float64)
    for picture, alone in zip(pictures, expected, strict=True):
        wanted = before.copy()
        wanted[52:84, 60:84] = pixels(alone)[20:52, 20:44]
        assert np.abs(wanted - before).max() > 5
        assert (pixels(picture) == wanted).all()


def test_the_second_pass_enlarges_the_same_part(
    session: Session, whole: InitImage, part: InitImage, root: Path
) -> None:
    """Its aspect differs a little from the part's: 1.5 times 72 is no multiple of 8."""
    hires = HiresOptions(scale=1.5, steps=2, denoise=0.5)
    picture = pixels(make(session, init=whole, hires=hires)[0])[56:80, 64:80]
    alone = make(session, init=part, hires=hires)[0].image
    assert alone.size == (96, 112)
    wanted = np.asarray(alone.resize((64, 72), Image.Resampling.LANCZOS), dtype=np.float64)[24:48, 24:40]
    before = np.asarray(Image.open(root / "wide.png"), dtype=np.float64)[56:80, 64:80]
    assert np.abs(picture - wanted).mean() < np.abs(wanted - before).mean() / 10


def test_a_controlnet_sees_the_same_part(session: Session, whole: InitImage, part: InitImage, root: Path) -> None:
    def made(init: InitImage, image: str) -> np.ndarray:
        control = ControlChoice(name="edges", image=root / image, strength=2.0)
        return pixels(make(session, init=init, controls=(control,))[0])

    followed = made(whole, "wide.png")[52:84, 60:84]
    assert (followed == made(part, "part.png")[20:52, 20:44]).all()
    assert (followed != pixels(make(session, init=whole)[0])[52:84, 60:84]).any()


def test_a_soft_edge_leaves_the_rest_byte_for_byte(session: Session, whole: InitImage, root: Path) -> None:
    picture = pixels(make(session, init=replace(whole, mask_blur=4), width=128, height=128)[0])
    before = np.asarray(Image.open(root / "wide.png"), dtype=np.float64)
    far = np.ones((144, 160), dtype=bool)
    far[52 - 12 : 84 + 12, 60 - 12 : 84 + 12] = False  # three times the radius
    assert picture.shape == before.shape and (picture[far] == before[far]).all()
    edge, middle = (np.abs(picture - before)[place].mean() for place in (np.s_[58:78, 60], np.s_[58:78, 72]))
    assert 0 < edge < middle


def test_an_inverted_mask_repaints_the_rest(session: Session, part: InitImage, root: Path, tmp_path: Path) -> None:
    Image.eval(Image.open(root / "part_mask.png"), lambda value: 255 - value).save(tmp_path / "negative.png")
    inverted = make(session, init=replace(part, mask_invert=True))[0]
    assert (pixels(inverted) == pixels(make(session, init=replace(part, mask=tmp_path / "negative.png"))[0])).all()
    before = np.asarray(Image.open(root / "part.png"), dtype=np.float64)
    assert (pixels(inverted)[20:52, 20:44] == before[20:52, 20:44]).all()


def test_the_picture_is_made_again_from_its_text(session: Session, whole: InitImage, root: Path) -> None:
    init = replace(whole, mask_invert=True, mask_content="fill", mask_padding=8)
    picture = make(session, init=init)[0]
    again = from_parameters(picture.parameters, places=[root])
    assert again.init == init
    assert (pixels(next(iter(generate(again, session)))) == pixels(picture)).all()
    assert (
        "Mask mode: Inpaint not masked, Masked content: fill, Inpaint area: Only masked, Masked area padding: 8"
        in picture.parameters
    )


@pytest.mark.parametrize("changes", [{"only_masked": True}, {"mask_invert": True}])
def test_without_a_mask_it_is_a_sentence(session: Session, root: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match="needs a mask"):
        make(session, init=InitImage(image=root / "wide.png", **changes))


def test_a_mask_that_is_white_and_inverted_is_told(
    session: Session, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("L", (160, 144), 255).save(tmp_path / "white.png")
    init = InitImage(image=root / "wide.png", mask=tmp_path / "white.png", mask_invert=True, only_masked=True)
    picture = make(session, init=init, steps=1)[0]
    assert "white.png is white everywhere, and inverted" in caplog.text
    assert (pixels(picture) == np.asarray(Image.open(root / "wide.png"))).all()
