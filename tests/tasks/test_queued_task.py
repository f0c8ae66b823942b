"""Information about a running task: speed, completed share, preview."""

from __future__ import annotations

import io
import threading

import pytest
import torch
from PIL import Image

from modules.generation.progress import Progress
from modules.tasks import queued_task
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory


def step(number: int, **more: object) -> Progress:
    return Progress(phase="sampling", batch=1, batches=2, step=number, steps=10, **more)  # type: ignore[arg-type]


def test_pace_counts_all_batches_and_knows_no_rate_after_one_step() -> None:
    queued = QueuedTask(task=FreeMemory())
    queued.on_progress(step(1))
    assert queued.pace is not None and queued.pace.rate is None
    threading.Event().wait(0.01)
    queued.on_progress(step(5, part="picture 2 of 3"))
    assert queued.pace.share == pytest.approx(0.25) and queued.pace.part == "picture 2 of 3"
    assert queued.pace.rate is not None and queued.pace.seconds_left == pytest.approx(15 / queued.pace.rate)


def test_a_task_that_is_over_soon_gets_no_preview() -> None:
    queued = QueuedTask(task=FreeMemory())
    queued.begin()
    queued.on_progress(step(1, denoised=torch.zeros(1, 4, 6, 8)))
    assert queued.preview == b""


def test_a_task_without_previews_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_task, "PREVIEW_SECONDS", 0.0)
    queued = QueuedTask(task=FreeMemory(), has_previews=False)
    queued.begin()
    queued.on_progress(step(1, denoised=torch.zeros(1, 4, 6, 8)))
    assert queued.preview == b""


def test_the_preview_is_a_small_picture_while_it_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_task, "PREVIEW_SECONDS", 0.0)
    queued = QueuedTask(task=FreeMemory())
    queued.begin()
    queued.on_progress(step(1, denoised=torch.zeros(1, 4, 6, 8)))
    assert Image.open(io.BytesIO(queued.preview)).size == (8, 6)
    queued.end("failed", "No.")
    assert (queued.preview, queued.finished, queued.state, queued.error) == (b"", True, "failed", "No.")
