"""Requests by themselves: the next one begins while the GPU computes a picture, and unusable ones are made again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from modules.gallery.output import OutputFolder
from modules.generation.job import Job
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.images.in_flight import PixelsInFlight
from modules.stable_fast.config import DISABLE_VARIABLE
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import MakePictures
from tests import tiny_project


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv(DISABLE_VARIABLE, "off")  # the networks are kept, but nothing is traced
    return tiny_project.session_at(tiny_project.project(tmp_path))


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Iterator[TaskQueue]:
    queue = TaskQueue(lambda: session, OutputFolder(tmp_path / "output"), most_together=1)
    yield queue
    queue.close()


def request(seed: int, **changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "cfg": 3.0, "stable_fast": "full"}
    return GenerationOptions(prompt="a cat", seed=seed, **values | changes)


def done(queued: QueuedTask) -> bytes:
    assert queued.wait(60) and queued.state == "done", queued.error
    return Image.open(queued.pictures[-1]).tobytes()


def test_the_next_request_begins_before_a_picture_has_come(
    queue: TaskQueue, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(queue.submit(MakePictures(options=request(0))))  # waited for: the autoencoder may overflow
    arrived, original, decoded = threading.Event(), PixelsInFlight.wait, threading.Semaphore(0)
    soon = Job.decode_soon

    def slow(pixels: PixelsInFlight) -> Any:
        assert arrived.wait(60)
        return original(pixels)

    def noted(job: Job, latent: Tensor) -> PixelsInFlight:
        decoded.release()
        return soon(job, latent)

    monkeypatch.setattr(PixelsInFlight, "wait", slow)
    monkeypatch.setattr(Job, "decode_soon", noted)
    tasks = [queue.submit(MakePictures(options=request(seed, number=1 + seed % 2))) for seed in (1, 4, 6)]
    assert decoded.acquire(timeout=60) and decoded.acquire(timeout=60)
    assert not decoded.acquire(timeout=0.1), "but no more than two are on their way"
    arrived.set()
    made = [done(queued) for queued in tasks]
    assert made == [list(generate(queued.task.options, session))[-1].image.tobytes() for queued in tasks]  # type: ignore[attr-defined]


def test_an_unusable_picture_is_made_again(queue: TaskQueue, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    done(queue.submit(MakePictures(options=request(0))))
    soon, calls = Job.decode_soon, list[int]()

    def spoiled(job: Job, latent: Tensor) -> PixelsInFlight:
        calls.append(1)
        return soon(job, latent * torch.nan if len(calls) == 2 else latent)

    monkeypatch.setattr(Job, "decode_soon", spoiled)
    several = queue.submit(MakePictures(options=request(1, number=3)))
    other = queue.submit(MakePictures(options=request(8)))
    done(several)
    expected = [picture.image.tobytes() for picture in generate(request(1, number=3), session)]
    assert [Image.open(path).tobytes() for path in several.pictures] == expected
    assert done(other) == next(iter(generate(request(8), session))).image.tobytes()
