"""What a worker sends: pictures as PNGs, the sign that it is free before the last one, warnings, errors, few steps."""

from __future__ import annotations

import io
import logging

import pytest
import torch
from PIL import Image

from modules.cluster.messages import Free, Warned
from modules.cluster.outbox import Outbox
from modules.core.errors import OutOfMemoryError
from modules.gallery.picture import EncodedPicture, Picture
from modules.generation.progress import Progress
from modules.images.metadata import PNG_KEY
from modules.tasks.kinds import MadePicture


def made(seed: int) -> MadePicture:
    image = Image.new("RGB", (8, 8), (seed, 0, 0))
    return MadePicture(picture=Picture(image=image, seed=seed, request_seed=7, parameters=f"a\nSeed: {seed}"))


def step(number: int, phase: str = "sampling") -> Progress:
    return Progress(phase=phase, batch=1, batches=1, step=number, steps=20, denoised=torch.ones(2, 4, 8, 8))


def test_the_worker_is_free_before_its_last_picture_is_sent() -> None:
    outbox = Outbox(watched=False)
    with outbox.filling():
        outbox.put_all(iter([made(1), made(2), made(3)]), skip=1)
    second, free, third = outbox.messages()
    assert isinstance(second, MadePicture) and isinstance(free, Free) and isinstance(third, MadePicture)
    assert isinstance(third.picture, EncodedPicture) and third.picture.seed == 3
    image = Image.open(io.BytesIO(third.picture.png))
    assert image.info[PNG_KEY] == "a\nSeed: 3" and image.getpixel((0, 0)) == (3, 0, 0)


def test_an_error_is_raised_where_the_messages_are_taken() -> None:
    outbox = Outbox(watched=False)
    with outbox.filling():
        raise OutOfMemoryError("Too large.")
    with pytest.raises(OutOfMemoryError, match="Too large."):
        list(outbox.messages())


def test_few_steps_are_told_and_fewer_previews() -> None:
    outbox = Outbox(watched=True)
    with outbox.filling():
        for number in range(21):
            outbox.tell(step(number))
    told = [message for message in outbox.messages() if isinstance(message, Progress)]
    assert [event.step for event in told] == [0, 20], "the first and the last one, since all came at once"
    assert [event.denoised is not None for event in told] == [True, False]
    assert told[0].denoised is not None and told[0].denoised.shape == (1, 4, 8, 8), "of the first picture only"


def test_nothing_is_told_when_nobody_looks() -> None:
    outbox = Outbox(watched=False)
    with outbox.filling():
        outbox.tell(step(0))
    assert list(outbox.messages()) == []


def test_warnings_come_along_while_the_task_runs() -> None:
    outbox = Outbox(watched=False)
    with outbox.filling(), outbox.warnings():
        logging.getLogger("modules.generation.session").warning("Memory is %s.", "short")
    logging.getLogger("modules.generation.session").warning("too late")
    assert list(outbox.messages()) == [Warned(text="Memory is short.")]
