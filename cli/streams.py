"""Standard output and standard error that may be full, closed, or left by their reader."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from modules.core.errors import OutputError, printable


def tell(text: str, kept: Path | None = None) -> None:
    """One line on standard output.

    Raises OutputError where it cannot be written, BrokenPipeError when nobody reads it any more. `kept` is the folder
    that holds the finished pictures, which the error names.
    """
    with output_errors(kept):
        try:
            sys.stdout.write(text + "\n")
        except UnicodeEncodeError:  # a path of bytes that this encoding lacks: written as the system has them
            sys.stdout.flush()
            sys.stdout.buffer.write(os.fsencode(text + "\n"))


def warn(text: str) -> None:
    """Lines on standard error, which holds everything but results; names of files cannot steer the terminal there."""
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()


def harmless(text: str) -> str:
    """The same lines, with escapes in place of control characters."""
    return "\n".join(printable(line) for line in text.split("\n"))


class HarmlessFormatter(logging.Formatter):
    """Writes what the log says as `warn` does."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


def log_to_errors() -> None:
    """Warnings of the log go to standard error, as lines without a date."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HarmlessFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def output_errors(kept: Path | None = None) -> Generator[None, None, None]:
    """What is written to standard output inside arrives there before this ends, or the error of `tell` is raised."""
    place = f" The finished pictures are in {kept}." if kept is not None else ""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # a shell's >&-
        raise OutputError(f"Standard output is closed: send it to a file or a terminal.{place}")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        raise
    except OSError as error:
        _drop_output()
        raise OutputError(f"Standard output cannot be written ({error.strerror or error}).{place}") from error


def _drop_output() -> None:
    """What is left in the buffer would fail again when Python ends."""
    sys.stdout = _nowhere()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


class Forgiving:
    """Standard error that takes every line: one that cannot be written is lost, and the work goes on."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or _nowhere()

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._stream = _nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._stream = _nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgive_errors() -> None:
    """Makes standard error forgiving until the process ends: Python itself flushes it last of all."""
    if not isinstance(sys.stderr, Forgiving):
        sys.stderr = Forgiving(sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
