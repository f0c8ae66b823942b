"""Repainting part by part equals repainting one part, and then another part of the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.core.errors import Cancelled, OptionsError
from modules.core.progress import CancelToken
from modules.generation.metadata.write import from_parameters
from modules.generation.options import HiresOptions, InitImage
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from tests.generation.test_text_to_image import make, options, pixels

BOXES = ((8, 8, 30, 30), (100, 100, 128, 140))


@pytest.fixture
def init(tmp_path: Path) -> InitImage:
    """A picture of 160x160 pixels with two marked parts, part.png and the masks of each part alone."""
    Image.effect_noise((20, 20), 90).convert("RGB").resize((160, 160)).save(tmp_path / "whole.png")
    both = Image.new("L", (160, 160))
    for number, box in enumerate(BOXES):
        one = Image.new("L", both.size)
        one.paste(255, box)
        both.paste(255, box)
        one.save(tmp_path / f"mask{number}.png")
    both.save(tmp_path / "both.png")
    return InitImage(image=tmp_path / "whole.png", mask=tmp_path / "both.png", each_part=True, mask_blur=2)


def test_it_equals_one_after_the_other(session: Session, init: InitImage, tmp_path: Path) -> None:
    pictures = make(session, init=init, batch=2)
    start = init.image
    for number in range(len(BOXES)):
        alone = replace(init, image=start, mask=tmp_path / f"mask{number}.png", each_part=False, only_masked=True)
        step = make(session, init=alone, seed=6)[0]
        start = tmp_path / f"step{number}.png"
        step.image.save(start)
    assert len(pictures) == 2 and (pixels(pictures[1]) == pixels(step)).all()
    assert (pixels(pictures[0]) != pixels(pictures[1])).any()
    again = from_parameters(pictures[1].parameters, places=[tmp_path])
    assert again.init == init and (pixels(next(iter(generate(again, session)))) == pixels(pictures[1])).all()


def test_each_part_is_told_and_may_be_cancelled(session: Session, init: InitImage) -> None:
    told: list[tuple[int, int]] = []
    cancel = CancelToken()

    def on_progress(event: Progress) -> None:
        told.append((event.batch, event.batches))
        if event.batch == 2 and event.step == 1:
            cancel.cancel()

    with pytest.raises(Cancelled):
        list(generate(options(init=init), session, on_progress=on_progress, cancel=cancel))
    assert sorted(set(told)) == [(1, 2), (2, 2)]


def test_each_part_may_have_a_second_pass(session: Session, init: InitImage) -> None:
    (picture,) = make(session, init=init, hires=HiresOptions(scale=1.5, steps=2))
    assert picture.image.size == (160, 160)
    changed = np.abs(pixels(picture) - np.asarray(Image.open(init.image), dtype=np.float64))
    assert all(changed[top:bottom, left:right].mean() > 5 for left, top, right, bottom in BOXES)


def test_what_cannot_be_is_a_sentence(session: Session, init: InitImage) -> None:
    with pytest.raises(OptionsError, match="needs a mask"):
        make(session, init=replace(init, mask=None))
    with pytest.raises(OptionsError, match="leave out --keep-first-pass"):
        make(session, init=init, hires=HiresOptions(keep_first_pass=True))
