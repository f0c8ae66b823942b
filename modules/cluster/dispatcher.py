"""Decides which worker takes which task: the waiting tasks, the free workers, and who goes to whom."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import DeviceError
from modules.core.progress import CancelToken

MOST_PASSED = 8  # tasks that may overtake another one, because their checkpoint is loaded
CHECK_SECONDS = 0.05  # between two looks at a cancel token


@dataclass(kw_only=True, eq=False)
class Seat:
    """A worker's place. `checkpoint` is the latest one that it was given, `served` the number of its latest task."""

    worker: Any  # Ray's handle of the actor
    up: bool = False
    busy: bool = False
    checkpoint: str | None = None
    served: int = 0


@dataclass(kw_only=True, eq=False)
class Ticket:
    """A waiting task and, once it has one, its seat."""

    checkpoint: str | None
    passed: int = 0
    seat: Seat | None = None
    given: threading.Event = field(default_factory=threading.Event)


def match(waiting: Sequence[Ticket], free: Sequence[Seat]) -> tuple[Ticket, Seat] | None:
    """Chooses the next pair: a task whose checkpoint a free worker has, or else the first task.

    A worker without a checkpoint is preferred to one that would lose its own. Otherwise the longest idle one is taken.
    """
    if not waiting or not free:
        return None
    if waiting[0].passed < MOST_PASSED:
        for ticket, seat in itertools.product(waiting, free):
            if ticket.checkpoint is not None and ticket.checkpoint == seat.checkpoint:
                return ticket, seat
    first = waiting[0]
    ranks = {first.checkpoint: 0, None: 1}
    return first, min(free, key=lambda seat: (ranks.get(seat.checkpoint, 2), seat.served))


class Dispatcher:
    """Gives seats to tasks; every method may be called from any thread."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self._seats = list(seats)
        self.waiting: list[Ticket] = []
        self._numbers = itertools.count(1)
        self._failure = ""  # why the latest worker is lost
        self._lock = threading.Lock()

    def acquire(self, checkpoint: str | None, cancel: CancelToken, *, urgent: bool = False) -> Ticket:
        """Waits for a worker and returns a ticket with its seat. An urgent task goes before the others.

        Raises Cancelled, or DeviceError if all workers are lost.
        """
        ticket = Ticket(checkpoint=checkpoint)
        with self._lock:
            self.waiting.insert(0 if urgent else len(self.waiting), ticket)
            self._serve()
        try:
            while not ticket.given.wait(CHECK_SECONDS):
                cancel.check()
                self._check_anyone_left()
        except BaseException:
            self.release(ticket)
            raise
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Takes back the ticket's seat, or its place among the waiting; a second time does nothing."""
        with self._lock:
            if ticket in self.waiting:
                self.waiting.remove(ticket)
            if ticket.seat is not None:
                ticket.seat.busy, ticket.seat = False, None
                self._serve()

    def open(self, seat: Seat) -> None:
        """The worker is ready, for the first time or again."""
        with self._lock:
            seat.up = True
            self._serve()

    def shut(self, seat: Seat) -> bool:
        """The worker has died and has nothing loaded any more. Returns False if that was known."""
        with self._lock:
            known = not seat.up
            seat.up, seat.checkpoint = False, None
            return not known

    def lose(self, seat: Seat, reason: str) -> None:
        """The worker will not come back."""
        with self._lock:
            self._seats.remove(seat)
            self._failure = reason

    def _serve(self) -> None:
        while pair := match(self.waiting, [seat for seat in self._seats if seat.up and not seat.busy]):
            ticket, seat = pair
            for earlier in self.waiting[: self.waiting.index(ticket)]:
                earlier.passed += 1
            self.waiting.remove(ticket)
            seat.busy, seat.served = True, next(self._numbers)
            seat.checkpoint = ticket.checkpoint or seat.checkpoint
            ticket.seat = seat
            ticket.given.set()

    def _check_anyone_left(self) -> None:
        if not self._seats:
            raise DeviceError(f"No worker of the cluster is left: {self._failure}")
