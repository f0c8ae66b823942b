"""Measures how long steps take: the first warm steps as they run, and a call of the network for comparison."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StepTimer:
    """Durations of the first warm steps; on CUDA measured by events, without waiting.

    Only the first steps are timed, because recording two events costs CPU time at every step.
    """

    def __init__(self, most: int = 40) -> None:
        self._most = most
        self._spans: list[tuple[Any, Any]] = []

    @contextmanager
    def span(self, device: torch.device) -> Iterator[None]:
        if len(self._spans) == self._most:
            yield
            return
        start = self._mark(device)
        yield
        self._spans.append((start, self._mark(device)))

    def _mark(self, device: torch.device) -> Any:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    def restart(self) -> None:
        """Starts over, for steps that run differently from now on."""
        self._spans.clear()

    def median_ms(self) -> float | None:
        if not self._spans:
            return None
        return statistics.median(_span_ms(start, end) for start, end in self._spans)


def _span_ms(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return (end - start) * 1000
    end.synchronize()
    return start.elapsed_time(end)


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(run: Callable[[], object], device: torch.device) -> float | None:
    """How long the second of two calls takes; None if there is not enough memory for the calls."""
    try:
        run()
        synchronize(device)
        started = time.perf_counter()
        run()
    except torch.OutOfMemoryError:
        return None
    synchronize(device)
    return (time.perf_counter() - started) * 1000
