"""Outpainting: the picture grows, its old part stays bit-equal outside the seam, and it can be made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.generation.image_to_image import open_source
from modules.generation.metadata.write import from_parameters
from modules.generation.options import InitImage
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests.generation.test_text_to_image import make, pixels


@pytest.fixture
def wider(photo: Path) -> InitImage:
    return InitImage(image=photo, outpaint=(0, 8, 64, 0), outpaint_seam=16, denoise=0.9)


@pytest.mark.parametrize("changes", [{}, {"mask_soft": True}, {"mask_content": "noise"}])
def test_the_picture_grows_and_keeps_its_old_part(
    session: Session, wider: InitImage, photo: Path, changes: dict[str, bool | str]
) -> None:
    picture = make(session, init=replace(wider, **changes), width=None, height=None)[0]
    before = np.asarray(Image.open(photo), dtype=np.float64)
    assert picture.image.size == (128, 80)
    assert (pixels(picture)[24:, :48] == before[16:, :48]).all()
    stretched = np.asarray(open_source(wider).image, dtype=np.float64)
    assert np.abs(pixels(picture) - stretched)[:, 64:].mean() > 5, "the new area is painted"


def test_it_is_made_again_from_its_text(session: Session, wider: InitImage, photo: Path) -> None:
    picture = make(session, init=wider, width=None, height=None)[0]
    again = from_parameters(picture.parameters, places=[photo.parent])
    assert again.init == wider
    assert (pixels(next(iter(generate(again, session)))) == pixels(picture)).all()


def test_only_the_new_part_may_be_enlarged(session: Session, wider: InitImage, photo: Path) -> None:
    picture = make(session, init=replace(wider, only_masked=True, mask_padding=8))[0]
    assert picture.image.size == (128, 80)
    assert (pixels(picture)[24:, :48] == np.asarray(Image.open(photo), dtype=np.float64)[16:, :48]).all()


def test_a_mask_besides_is_a_sentence(session: Session, wider: InitImage, mask: Path) -> None:
    with pytest.raises(OptionsError, match="mask of its own"):
        make(session, init=replace(wider, mask=mask))
