"""The queue: one at a time, in order, cancelled while waiting or running, errors told on the ticket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from modules.core.errors import OptionsError
from modules.generation.progress import Progress
from modules.tasks.queue import GenerationQueue
from modules.tasks.task import Ticket


@pytest.fixture
def queue() -> Iterator[GenerationQueue]:
    queue = GenerationQueue(lambda: "session")  # type: ignore[arg-type, return-value]
    yield queue
    queue.close()


def until_cancelled(session: Any, ticket: Ticket) -> None:
    while True:
        ticket.cancel.check()
        threading.Event().wait(0.005)


def test_work_runs_in_order_on_one_thread_with_one_session(queue: GenerationQueue) -> None:
    seen: list[tuple[str, str, Any]] = []

    def work(session: Any, ticket: Ticket) -> None:
        seen.append((ticket.label, threading.current_thread().name, session))

    tickets = [queue.submit(label, work) for label in "abc"]
    assert all(ticket.wait(10) for ticket in tickets)
    assert [label for label, _, _ in seen] == ["a", "b", "c"]
    assert len({thread for _, thread, _ in seen}) == 1
    assert {session for _, _, session in seen} == {"session"}
    assert [ticket.state for ticket in tickets] == ["done"] * 3


def test_a_waiting_request_knows_its_place_and_can_be_cancelled(queue: GenerationQueue) -> None:
    running, waiting = queue.submit("first", until_cancelled), queue.submit("second", until_cancelled)
    assert queue.ahead_of(waiting) == 1
    waiting.cancel.cancel()
    running.cancel.cancel()
    assert running.wait(10) and waiting.wait(10)
    assert (running.state, waiting.state) == ("cancelled", "cancelled")
    assert waiting.started is None
    assert queue.unfinished() == []


def test_a_waiting_request_leaves_the_line_at_once(queue: GenerationQueue) -> None:
    running, waiting = queue.submit("first", until_cancelled), queue.submit("second", until_cancelled)
    assert queue.cancel(waiting.id)
    assert waiting.wait(10) and waiting.state == "cancelled"
    assert queue.unfinished() == [running]
    assert queue.cancel(running.id) and running.wait(10)
    assert not queue.cancel("no such")


def test_errors_are_told_and_the_next_request_runs(queue: GenerationQueue) -> None:
    def refuse(session: Any, ticket: Ticket) -> None:
        raise OptionsError("Too small: take more.")

    def break_down(session: Any, ticket: Ticket) -> None:
        raise ZeroDivisionError("oops")

    refused, broken = queue.submit("", refuse), queue.submit("", break_down)
    fine = queue.submit("", lambda session, ticket: None)
    assert fine.wait(10)
    assert (refused.state, refused.error) == ("failed", "Too small: take more.")
    assert broken.state == "failed" and "ZeroDivisionError: oops" in broken.error
    assert fine.state == "done"


def test_pace_counts_all_batches_and_knows_no_rate_after_one_step() -> None:
    ticket = Ticket(label="")
    ticket.on_progress(Progress(phase="sampling", batch=1, batches=2, step=1, steps=10))
    assert ticket.pace is not None and ticket.pace.rate is None
    threading.Event().wait(0.01)
    ticket.on_progress(Progress(phase="sampling", batch=1, batches=2, step=5, steps=10))
    assert ticket.pace.share == pytest.approx(0.25)
    assert ticket.pace.rate is not None and ticket.pace.seconds_left == pytest.approx(15 / ticket.pace.rate)
