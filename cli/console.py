"""What all requests of one call share: session, output folder, progress bar, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from modules.core.progress import CancelToken

if TYPE_CHECKING:
    from modules.generation.output import OutputFolder
    from modules.generation.progress import Progress
    from modules.generation.session import Session

STOPPING = b"Stopping after this step; Ctrl-C again stops at once.\n"


@contextmanager
def stop_on_interrupt(cancel: CancelToken) -> Generator[None, None, None]:
    """The first Ctrl-C asks the sampler to stop after its step; the second one stops at once."""

    def handler(_signal: int, _frame: object) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel()
        os.write(sys.stderr.fileno(), STOPPING)  # past Python's buffer, which may be in the middle of a write

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class ProgressBar:
    """One tqdm bar a phase on standard error, with it/s and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._phase: tuple[str, int] | None = None

    def __call__(self, event: Progress) -> None:
        if self._quiet:
            return
        from tqdm import tqdm

        if self._bar is None or self._phase != (event.phase, event.batch):
            self.close()
            label = event.phase if event.batches == 1 else f"{event.phase} {event.batch}/{event.batches}"
            self._bar = tqdm(total=event.steps, desc=label, unit="it", file=sys.stderr, leave=True)
            self._phase = (event.phase, event.batch)
        self._bar.update(event.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """`given` are the arguments of the command line."""

    given: Mapping[str, Any]
    session: Session
    output: OutputFolder
    bar: ProgressBar
    cancel: CancelToken

    def say(self, text: str, stream: TextIO | None = None) -> None:
        """One line, on standard error unless told otherwise, with the bar out of the way."""
        self.bar.close()
        out: TextIO = stream or sys.stderr
        out.write(text + "\n")
        out.flush()

    def say_path(self, path: object) -> None:
        """A finished picture, on standard output unless --json tells it at the end."""
        if not self.given.get("json"):
            self.say(str(path), sys.stdout)
