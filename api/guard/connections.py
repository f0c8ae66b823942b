"""Limits the number of connections and how long they may stay silent, since uvicorn has no such limits."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if os.name == "nt":
    resource = None
else:
    import resource

SILENT_SECONDS = 30  # to wait for a request's first line and headers
MOST_CONNECTIONS = 1000
ACCEPTED_AT_ONCE = 64  # accepted before any connection is closed


def most_connections() -> int:
    """Returns a third of this process's limit on open files; the rest is for bursts, models and pictures."""
    if resource is None:
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 3)


class Patient(H11Protocol):
    """A connection that is closed after a long silence. A connection over the limit closes the longest silent one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.silent_since = time.monotonic()
        self._next_look = self.loop.call_later(SILENT_SECONDS, self._look)
        others = [one for one in self.connections if isinstance(one, Patient) and not one.transport.is_closing()]
        if len(others) > most_connections():
            min((one for one in others if one.is_silent), key=lambda one: one.silent_since).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.silent_since = time.monotonic()
        super().on_response_complete()

    @property
    def is_silent(self) -> bool:
        """Tells whether no request is in progress."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def _look(self) -> None:
        if self.is_silent and time.monotonic() - self.silent_since >= SILENT_SECONDS:
            self.transport.close()
        else:
            self._next_look = self.loop.call_later(SILENT_SECONDS, self._look)
