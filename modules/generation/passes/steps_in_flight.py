"""Keeps the host only a few steps ahead of a GPU: steps are told when they are done, and a cancel stops the others."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Protocol

import torch

from modules.core.progress import OnStep, StepEvent

RESERVE_SECONDS = 0.1  # of steps that the GPU has in advance, so that it never waits for a busy host
FIRST_AHEAD = 4  # steps, before their duration is known
FEWEST_AHEAD, MOST_AHEAD = 2, 16


class Mark(Protocol):
    """A place in the GPU's work; `synchronize` waits until the GPU has come there."""

    def synchronize(self) -> None: ...


class StepsInFlight:
    """Tells each step once the GPU has finished it. Other devices finish a step before it is added."""

    def __init__(self, tell: OnStep, device: torch.device) -> None:
        self._tell = tell
        self._device = device
        self._steps: deque[tuple[StepEvent, Mark]] = deque()
        self._ahead = FIRST_AHEAD
        self._latest: float | None = None  # when the latest step was done

    def add(self, event: StepEvent) -> None:
        """Takes a step that the GPU may not have done yet. Waits if too many of them are not."""
        if self._device.type != "cuda":
            self._tell(event)
            return
        self._steps.append((event, marked(self._device)))
        while len(self._steps) > self._ahead:
            event, done = self._steps.popleft()
            done.synchronize()
            self._measure(time.monotonic())
            self._tell(event)

    def end(self) -> None:
        """Tells the last steps a little too early and without latents, so that the GPU gets its next work in time."""
        while self._steps:
            event, _ = self._steps.popleft()
            self._tell(replace(event, denoised=None))

    def _measure(self, now: float) -> None:
        if self._latest is not None:
            steps = RESERVE_SECONDS / max(now - self._latest, RESERVE_SECONDS / MOST_AHEAD)
            self._ahead = max(FEWEST_AHEAD, round(steps))
        self._latest = now


def marked(device: torch.device) -> Mark:
    """Marks the end of what the GPU has been given so far. A thread that waits for it takes no CPU time."""
    mark = torch.cuda.Event(blocking=True)
    mark.record(torch.cuda.current_stream(device))
    return mark
