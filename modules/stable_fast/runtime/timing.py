"""Measures how long steps take: the first warm steps as they run, and a call of the network for comparison."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Protocol, TypeVar

import torch
from torch import nn


class TimedCall(Protocol):
    """What timing needs to know about one evaluation of the network."""

    @property
    def key(self) -> Hashable: ...

    @property
    def device(self) -> torch.device: ...

    def name(self) -> str: ...

    def eager(self, network: nn.Module) -> Callable[[], object]: ...


Timed = TypeVar("Timed", bound=TimedCall)
Outcome = TypeVar("Outcome")


class StepTimer:
    """Durations of the first warm steps; on CUDA measured by events, without waiting.

    Only the first steps are timed, because recording two events costs CPU time at every step.
    """

    def __init__(self, most: int = 40) -> None:
        self._most = most
        self._spans: list[tuple[Any, Any]] = []
        self._median: tuple[int, float] | None = None  # of so many spans

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
            synchronize(device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    def latest_ms(self) -> float | None:
        """The duration of the latest step; None if no step is timed, or none any more."""
        return _span_ms(*self._spans[-1]) if 0 < len(self._spans) < self._most else None

    def restart(self) -> None:
        """Starts over, for steps that run differently from now on."""
        self._spans.clear()
        self._median = None

    def median_ms(self) -> float | None:
        """The median of the steps that are done. Asked for after every picture, it does not wait for the others."""
        known = 0 if self._median is None else self._median[0]
        done = known + sum(1 for _ in takewhile(_is_done, self._spans[known:]))
        if done > known:
            self._median = done, statistics.median(_span_ms(start, end) for start, end in self._spans[:done])
        return None if self._median is None else self._median[1]


def _is_done(span: tuple[Any, Any]) -> bool:
    _, end = span
    return isinstance(end, float) or end.query()


def _span_ms(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return (end - start) * 1000
    end.synchronize()
    return start.elapsed_time(end)


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type != "cpu":
        torch.accelerator.synchronize(device)


def milliseconds(run: Callable[[], object], device: torch.device, *, calls: int = 2) -> float | None:
    """How long the last of some calls takes; None if there is not enough memory for the calls."""
    try:
        for _ in range(calls - 1):
            run()
        synchronize(device)
        started = time.perf_counter()
        run()
    except torch.OutOfMemoryError:
        return None
    synchronize(device)
    return (time.perf_counter() - started) * 1000
