"""Steps are told when a GPU has done them: the host waits before it is far ahead, but never for the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from modules.core.errors import Cancelled
from modules.core.progress import StepEvent
from modules.generation.passes import steps_in_flight
from modules.generation.passes.steps_in_flight import FEWEST_AHEAD, FIRST_AHEAD, MOST_AHEAD, StepsInFlight

GPU = torch.device("cuda")


class Work:
    """A GPU whose steps take so many seconds each; it is waited for step by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_seconds: float) -> None:
        self.step_seconds, self.added, self.done = step_seconds, 0, 0
        monkeypatch.setattr(steps_in_flight, "marked", lambda _: self.mark())
        clock = SimpleNamespace(monotonic=lambda: self.done * step_seconds)
        monkeypatch.setattr(steps_in_flight, "time", clock)

    def mark(self) -> Work.Mark:
        self.added += 1
        return Work.Mark(self, self.added)

    class Mark:
        def __init__(self, work: Work, place: int) -> None:
            self.work, self.place = work, place

        def synchronize(self) -> None:
            self.work.done = max(self.work.done, self.place)


def events(steps: int) -> Iterator[StepEvent]:
    return (StepEvent(step=n + 1, steps=steps, sigma=1.0, denoised=torch.zeros(1, 4, 2, 2)) for n in range(steps))


@pytest.mark.parametrize(("seconds", "ahead"), [(0.5, FEWEST_AHEAD), (0.025, 4), (0.0001, MOST_AHEAD)])
def test_the_host_is_ahead_by_a_time_and_told_steps_are_done(
    monkeypatch: pytest.MonkeyPatch, seconds: float, ahead: int
) -> None:
    work, told = Work(monkeypatch, seconds), list[int]()
    steps = StepsInFlight(lambda event: told.append(event.step), GPU)
    for event in events(40):
        steps.add(event)
        assert told == list(range(1, work.done + 1))
        assert work.added - work.done <= max(FIRST_AHEAD, ahead)
    assert work.added - work.done == ahead
    steps.end()
    assert told == list(range(1, 41)) and work.done == 40 - ahead


def test_steps_that_are_told_early_have_no_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    Work(monkeypatch, 0.5)
    told: list[StepEvent] = []
    steps = StepsInFlight(told.append, GPU)
    for event in events(10):
        steps.add(event)
    steps.end()
    assert [event.denoised is None for event in told] == [False] * 8 + [True] * 2


def test_a_cancel_leaves_out_the_steps_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch, 0.5)

    def tell(event: StepEvent) -> None:
        if event.step == 3:
            raise Cancelled("Cancelled.")

    steps = StepsInFlight(tell, GPU)
    with pytest.raises(Cancelled):
        for event in events(40):
            steps.add(event)
    assert work.added - work.done <= FIRST_AHEAD


def test_a_cpu_has_done_each_step_that_it_tells() -> None:
    told: list[StepEvent] = []
    steps = StepsInFlight(told.append, torch.device("cpu"))
    for number, event in enumerate(events(3), start=1):
        steps.add(event)
        assert len(told) == number and told[-1] is event
    steps.end()
    assert len(told) == 3
