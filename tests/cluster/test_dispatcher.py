"""Who goes to which worker: loaded checkpoints first, nobody waits forever, and a seat is given back once."""

from __future__ import annotations

import threading

import pytest

from modules.cluster.dispatcher import MOST_PASSED, Dispatcher, Seat, Ticket, match
from modules.core.errors import Cancelled, DeviceError
from modules.core.progress import CancelToken


def seat(checkpoint: str | None = None, served: int = 0) -> Seat:
    return Seat(worker=None, up=True, checkpoint=checkpoint, served=served)


def test_a_task_goes_to_the_worker_that_has_its_checkpoint() -> None:
    waiting, free = [Ticket(checkpoint="b")], [seat(), seat("a"), seat("b", served=9)]
    assert match(waiting, free) == (waiting[0], free[2])


def test_a_free_worker_takes_the_first_task_of_its_checkpoint() -> None:
    waiting = [Ticket(checkpoint="a"), Ticket(checkpoint="b"), Ticket(checkpoint="b")]
    free = [seat("b")]
    assert match(waiting, free) == (waiting[1], free[0])


def test_a_task_that_was_overtaken_often_is_next() -> None:
    waiting = [Ticket(checkpoint="a", passed=MOST_PASSED), Ticket(checkpoint="b")]
    free = [seat("b")]
    assert match(waiting, free) == (waiting[0], free[0])


def test_an_empty_worker_is_better_than_one_that_would_lose_its_checkpoint() -> None:
    waiting, free = [Ticket(checkpoint="c")], [seat("a", served=1), seat("b", served=2), seat(None, served=3)]
    assert match(waiting, free) == (waiting[0], free[2])
    assert match(waiting, free[:2]) == (waiting[0], free[0]), "the one that is idle for longest"


def test_nobody_waits_forever_beside_a_stream_of_another_checkpoint() -> None:
    dispatcher = Dispatcher([seat("b")])
    current = dispatcher.acquire("b", CancelToken())
    order: list[str] = []

    def wait(checkpoint: str) -> None:
        ticket = dispatcher.acquire(checkpoint, CancelToken())
        order.append(checkpoint)
        dispatcher.release(ticket)

    threads = [threading.Thread(target=wait, args=(name,)) for name in ["a"] + ["b"] * (MOST_PASSED + 4)]
    for thread in threads:
        thread.start()
        while len(dispatcher.waiting) < threads.index(thread) + 1:
            pass
    dispatcher.release(current)
    for thread in threads:
        thread.join(10)
    assert order.index("a") == MOST_PASSED


def test_a_ticket_is_given_back_once() -> None:
    dispatcher = Dispatcher([seat()])
    first = dispatcher.acquire(None, CancelToken())
    dispatcher.release(first)
    second = dispatcher.acquire(None, CancelToken())
    dispatcher.release(first)
    assert second.seat is not None and second.seat.busy, "the second task still has its worker"


def test_a_cancelled_task_leaves_the_queue() -> None:
    dispatcher, cancel = Dispatcher([Seat(worker=None)]), CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        dispatcher.acquire(None, cancel)
    assert dispatcher.waiting == []


def test_without_workers_there_is_a_sentence() -> None:
    one = seat()
    one.up = False
    dispatcher = Dispatcher([one])
    dispatcher.lose(one, "it could not start (no torch).")
    with pytest.raises(DeviceError, match=r"No worker of the cluster is left: it could not start \(no torch\)\."):
        dispatcher.acquire(None, CancelToken())
