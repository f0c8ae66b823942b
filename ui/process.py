"""Starts the program's process quickly, and waits until it is to end."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pauses garbage collection while the page is built, a tenth of the work; nearly all of it stays to the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def wait_to_be_stopped() -> None:
    """Waits for Ctrl-C or for SIGTERM (sent by service managers); a second signal ends the program at once."""
    asked: list[int] = []

    def handler(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    while not asked:
        time.sleep(0.1)
