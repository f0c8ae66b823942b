"""A task in the queue: its progress, its pictures, and a way to stop it."""

from __future__ import annotations

import io
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.progress import CancelToken
from modules.gallery.output import OutputFolder
from modules.tasks.task import Task

if TYPE_CHECKING:
    from modules.generation.progress import Progress
    from modules.tasks.compare import Comparison
    from modules.tasks.kinds import MadePicture

PREVIEW_SECONDS = 0.4  # minimum time between two previews
PREVIEW_SHARE = 0.02  # the maximum share of the total time to spend on previews


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Progress of the current phase; `rate` in steps per second and `seconds_left` are None until known."""

    part: str
    phase: str
    batch: int
    batches: int
    step: int
    steps: int
    rate: float | None = None
    seconds_left: float | None = None

    @property
    def share(self) -> float:
        """The finished share of this phase over all batches, 0..1."""
        return (self.batch - 1 + self.step / max(self.steps, 1)) / max(self.batches, 1)


@dataclass(kw_only=True)
class QueuedTask:
    """A submitted task. The queue's thread writes to it; any thread may read it."""

    task: Task
    output: OutputFolder | None = None  # for its pictures, in place of the queue's own
    has_previews: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    cancel: CancelToken = field(default_factory=CancelToken)
    state: str = "waiting"  # then "running", finally "done", "cancelled" or "failed"
    pictures: list[Path] = field(default_factory=list)
    seed: int | None = None
    note: str = ""
    error: str = ""
    failure: BaseException | None = None
    comparison: Comparison | None = None
    pace: Pace | None = None
    preview: bytes = b""
    started: float | None = None
    ended: float | None = None
    in_batch: bool = False  # made together with others or, if that failed, by itself after all
    made: int = 0  # pictures that are finished, some of which may not be saved yet
    is_made: bool = False  # all of them are
    is_spoiled: bool = False  # one of them cannot be used: what else its batch made is dropped
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _phase_began: tuple[str, int, int, float] | None = None
    _next_preview: float = 0.0

    @property
    def finished(self) -> bool:
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """Time spent on the task so far."""
        if self.started is None:
            return 0.0
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    def add(self, made: MadePicture, path: Path) -> None:
        """Records another picture saved to disk."""
        self.note, self.comparison = made.note, made.comparison
        self.seed = made.picture.request_seed if self.seed is None else self.seed
        self.pictures.append(path)

    def begin(self) -> None:
        self.state, self.started = "running", time.monotonic()
        self._next_preview = self.started + PREVIEW_SECONDS  # a task that is over by then needs none

    def begin_again(self) -> None:
        """Puts the task back in line after the batch that it was part of has failed."""
        self.state = "waiting"

    def make_rest(self) -> None:
        """After one of its pictures proved to be unusable: that one and those after it are to be made."""
        self.made, self.is_made = len(self.pictures), False

    def end(self, state: str, error: str = "", failure: BaseException | None = None) -> None:
        self.error, self.failure, self.ended, self.state = error, failure, time.monotonic(), state
        self.preview = b""
        self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the task is finished or the time is up; returns whether it is finished."""
        return self._ended.wait(seconds)

    def on_progress(self, event: Progress) -> None:
        """Records progress; called after each step of the generation."""
        self.pace = self._measure(event)
        if self.has_previews and event.denoised is not None and time.monotonic() >= self._next_preview:
            began = time.monotonic()
            self.preview = encode_preview(event.denoised, event.family)
            cost = time.monotonic() - began
            self._next_preview = time.monotonic() + max(PREVIEW_SECONDS, cost / PREVIEW_SHARE)

    def _measure(self, event: Progress) -> Pace:
        """Measures the pace without the first step of each phase, which includes loading and warm-up."""
        now = time.monotonic()
        here = (event.phase, event.batch)
        if self._phase_began is None or self._phase_began[:2] != here:
            self._phase_began = (*here, event.step, now)
        _, _, first, began = self._phase_began
        rate = (event.step - first) / (now - began) if event.step > first and now > began else None
        steps_left = event.steps - event.step + (event.batches - event.batch) * event.steps
        return Pace(
            part=event.part,
            phase=event.phase,
            batch=event.batch,
            batches=event.batches,
            step=event.step,
            steps=event.steps,
            rate=rate,
            seconds_left=steps_left / rate if rate else None,
        )


def encode_preview(denoised: Any, family: str) -> bytes:
    """Encodes the first picture's predicted clean latent as a small PNG, one pixel per latent cell."""
    from modules.images.preview import latent_to_rgb

    buffer = io.BytesIO()
    latent_to_rgb(denoised, family).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
