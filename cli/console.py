"""What all requests of one call share: session, output folder, progress bar, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.streams import tell, warn
from modules.core.progress import CancelToken

if TYPE_CHECKING:
    from modules.gallery.output import OutputFolder
    from modules.generation.progress import Progress
    from modules.generation.session import Session

STOPPING = b"Stopping after this step; Ctrl-C again stops at once.\n"


class ProgressBar:
    """One tqdm bar a phase on standard error, with it/s and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._phase: tuple[str, int] | None = None

    def __call__(self, event: Progress) -> None:
        """Moves the bar. A new one begins with each phase, and where the same phase begins again."""
        if self._quiet:
            return
        bar = self._bar
        if bar is None or self._phase != (event.phase, event.batch) or event.step <= bar.n:
            bar = self._open(event)
        bar.update(event.step - bar.n)
        if event.step >= event.steps:
            self.close()

    def _open(self, event: Progress) -> Any:
        from tqdm import tqdm

        self.close()
        label = event.phase if event.batches == 1 else f"{event.phase} {event.batch}/{event.batches}"
        self._bar = tqdm(total=event.steps, desc=label, unit="it", file=sys.stderr, leave=True)
        self._phase = (event.phase, event.batch)
        return self._bar

    @property
    def is_open(self) -> bool:
        return self._bar is not None

    @contextmanager
    def aside(self) -> Generator[None, None, None]:
        """The bar out of the way while something is printed; then it goes on below."""
        if self._bar is not None:
            self._bar.clear()
        yield
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def stop_on_interrupt(cancel: CancelToken, bar: ProgressBar) -> Generator[None, None, None]:
    """The first Ctrl-C asks the sampler to stop after its step; the second one stops at once."""

    def handler(_signal: int, _frame: object) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel()
        with suppress(OSError):  # past Python's buffer, which may be in the middle of a write
            os.write(sys.stderr.fileno(), b"\n" * bar.is_open + STOPPING)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """`given` are the arguments of the command line."""

    given: Mapping[str, Any]
    session: Session
    output: OutputFolder
    bar: ProgressBar
    cancel: CancelToken

    def say(self, text: str) -> None:
        """One line on standard error."""
        with self.bar.aside():
            warn(text)

    def say_path(self, path: object) -> None:
        """A finished picture, on standard output unless --json tells it at the end."""
        if not self.given.get("json"):
            with self.bar.aside():
                tell(str(path))
