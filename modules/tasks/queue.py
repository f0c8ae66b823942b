"""One worker thread that owns the models; requests wait in line, each with its own ticket."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from modules.core.errors import Cancelled, LightDiffusionError, OptionsError, bug_text
from modules.tasks.task import Ticket

if TYPE_CHECKING:
    from modules.generation.session import Session

log = logging.getLogger(__name__)

Work = Callable[["Session", Ticket], None]
MOST_WAITING = 50
KEPT_TICKETS = 100


class GenerationQueue:
    """Runs one piece of work at a time, in the order asked; the session is made when the first one starts."""

    def __init__(self, make_session: Callable[[], Session]) -> None:
        self._make_session = make_session
        self._session: Session | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generation")
        self._tickets: dict[str, Ticket] = {}
        self._futures: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    @property
    def session(self) -> Session | None:
        """For looking at (memory, status), not for working with; None until the first work began."""
        return self._session

    def submit(self, label: str, work: Work) -> Ticket:
        """Puts work into the line; returns at once."""
        ticket = Ticket(label=label)
        with self._lock:
            if len(self.unfinished()) >= MOST_WAITING:
                raise OptionsError(f"{MOST_WAITING} requests are waiting already; try again when some are finished.")
            self._forget_oldest()
            self._tickets[ticket.id] = ticket
            future = self._futures[ticket.id] = self._executor.submit(self._run, work, ticket)
        future.add_done_callback(partial(conclude, ticket))
        return ticket

    def find(self, ticket_id: str) -> Ticket | None:
        return self._tickets.get(ticket_id)

    def cancel(self, ticket_id: str) -> bool:
        """Stops what runs after its step, and what waits at once; false when there is no such request."""
        with self._lock:
            ticket, future = self._tickets.get(ticket_id), self._futures.get(ticket_id)
        if ticket is None or future is None:
            return False
        ticket.cancel.cancel()
        future.cancel()
        return True

    def unfinished(self) -> list[Ticket]:
        """Running first, then waiting, in order."""
        return [ticket for ticket in list(self._tickets.values()) if not ticket.finished]

    def ahead_of(self, ticket: Ticket) -> int:
        """How many unfinished requests come before this one."""
        unfinished = self.unfinished()
        return unfinished.index(ticket) if ticket in unfinished else 0

    def close(self) -> None:
        """Stops what runs after its step and drops what waits."""
        for ticket in self.unfinished():
            ticket.cancel.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, work: Work, ticket: Ticket) -> None:
        ticket.cancel.check()
        ticket.begin()
        if self._session is None:
            self._session = self._make_session()
        work(self._session, ticket)

    def _forget_oldest(self) -> None:
        finished = [key for key, ticket in self._tickets.items() if ticket.finished]
        for key in finished[: max(0, len(self._tickets) - KEPT_TICKETS)]:
            del self._tickets[key], self._futures[key]


def conclude(ticket: Ticket, future: Future[None]) -> None:
    """Writes the outcome on the ticket; an error that is not meant for people goes to the log as well."""
    error = Cancelled("Cancelled.") if future.cancelled() else future.exception()
    if error is None:
        ticket.end("done")
    elif isinstance(error, Cancelled):
        ticket.end("cancelled", str(error))
    elif isinstance(error, LightDiffusionError):
        ticket.end("failed", str(error))
    else:
        log.error("%s failed", ticket.label, exc_info=error)
        ticket.end("failed", bug_text(error))
