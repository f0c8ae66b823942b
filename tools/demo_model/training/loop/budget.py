"""Tracks the remaining time of the whole plan and of each stage."""

from __future__ import annotations

import time


class Clock:
    """Wall-clock seconds of the whole plan."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def resume(self, elapsed: float) -> None:
        self._start = time.monotonic() - elapsed


class Budget:
    """A stage's share of the clock; it has an absolute end, so a slow stage never delays the last one."""

    def __init__(self, clock: Clock, end: float) -> None:
        self.clock = clock
        self.start, self._end = clock.elapsed, end * clock.seconds

    def resume(self, elapsed: float, start: float) -> None:
        self.clock.resume(elapsed)
        self.start = start

    @property
    def fraction(self) -> float:
        """Returns 0 at the stage's start, 1 at its end."""
        return min((self.clock.elapsed - self.start) / max(self._end - self.start, 1e-3), 1.0)

    @property
    def seconds_left(self) -> float:
        return self._end - self.clock.elapsed

    @property
    def over(self) -> bool:
        return self.seconds_left <= 0
