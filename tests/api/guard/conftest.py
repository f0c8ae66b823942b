"""A clock for the waits of the guard, so that a test of eight seconds takes none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from api.guard import logins


class Clock:
    """What time it is for `api.guard.logins`, and how long each of its attempts waited.

    Only that module sees it: a sleep that returns at once keeps the other event loops of this process busy for ever.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.stands_still = False

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(round(seconds, 1))
        self.now += 0 if self.stands_still else seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logins, "asyncio", SimpleNamespace(sleep=clock.sleep))
    monkeypatch.setattr(logins, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock
