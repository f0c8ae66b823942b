"""Shared state of one call of the command line: session, output folder, progress bar, and Ctrl-C handling."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.streams import tell, warn
from modules.core.errors import Cancelled, LightDiffusionError
from modules.core.progress import CancelToken

if TYPE_CHECKING:
    from modules.gallery.output import OutputFolder
    from modules.generation.progress import Progress
    from modules.generation.session import Session

LOADING = "Still loading: stopping as soon as it is done"
BETWEEN = "Stopping before the next step"
IN_STEP = "Stopping after this step"
USUAL_COLUMNS, USUAL_ROWS = 80, 24  # for a terminal that reports a size of 0


class ProgressBar:
    """Shows one tqdm bar per phase on standard error, with it/s and the remaining time."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._phase: tuple[str, int] | None = None

    def __call__(self, event: Progress) -> None:
        """Advances the bar. Each phase gets a new bar, and so does a restarted phase."""
        begins = self._phase != (event.phase, event.batch)
        self._phase = (event.phase, event.batch)
        if self._quiet:
            return
        bar = self._bar
        if bar is None or begins or event.step <= bar.n:
            bar = self._open(event)
        bar.total = event.steps  # an adaptive sampler changes its total
        bar.update(event.step - bar.n)
        if event.step >= event.steps:
            self.close()

    def _open(self, event: Progress) -> Any:
        from tqdm import tqdm

        self.close()
        label = event.phase if event.batches == 1 else f"{event.phase} {event.batch}/{event.batches}"
        self._bar = tqdm(
            total=event.steps, desc=label, unit="it", file=sys.stderr, leave=True, ncols=columns(), nrows=USUAL_ROWS
        )
        return self._bar

    @property
    def is_open(self) -> bool:
        return self._bar is not None

    @property
    def stopping(self) -> str:
        """Describes what Ctrl-C does at this moment."""
        return LOADING if self._phase is None else IN_STEP if self.is_open else BETWEEN

    @contextmanager
    def aside(self) -> Generator[None, None, None]:
        """Hides the bar while something is printed, then continues it below."""
        if self._bar is not None:
            self._bar.clear()
        yield
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def columns() -> int | None:
    """Returns the bar's width; None if standard error is not a terminal."""
    try:
        return (os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS) - 1  # a full line would wrap
    except (OSError, ValueError):
        return None


@contextmanager
def stop_on_interrupt(cancel: CancelToken, bar: ProgressBar) -> Generator[None, None, None]:
    """Makes the first Ctrl-C stop the sampler after the current step, and a second Ctrl-C stop immediately."""

    def handler(_signal: int, _frame: object) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel()
        with suppress(OSError):  # bypasses Python's buffer, which may be in use
            line = "\n" * bar.is_open + f"{bar.stopping}; Ctrl-C again stops at once.\n"
            os.write(sys.stderr.fileno(), line.encode())

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One call of the command line; `given` holds its arguments."""

    given: Mapping[str, Any]
    output: OutputFolder
    bar: ProgressBar
    cancel: CancelToken

    def say(self, text: str) -> None:
        """Prints one line on standard error."""
        with self.bar.aside():
            warn(text)

    def say_path(self, path: Path) -> None:
        """Prints a finished picture's path on standard output, unless --json reports it at the end."""
        if not self.given.get("json"):
            with self.bar.aside():
                tell(str(path), kept=path.parent)


@dataclass(frozen=True, kw_only=True)
class SessionRun(RunContext):
    """A call that makes its pictures in this process."""

    session: Session


def ending(error: LightDiffusionError, pictures: int) -> str:
    """Returns the error's message; after Ctrl-C, it adds that any finished pictures are kept."""
    return f"{error} Finished pictures are kept." if isinstance(error, Cancelled) and pictures else str(error)
