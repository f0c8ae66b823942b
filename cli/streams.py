"""Writes to standard output and standard error, even if they are full, closed, or disconnected."""

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
    """Prints one line on standard output.

    Raises OutputError if writing fails, BrokenPipeError if the reader is gone. The error mentions `kept`, the folder of
    the finished pictures.
    """
    with output_errors(kept):
        try:
            sys.stdout.write(text + "\n")
        except UnicodeEncodeError:  # for a path that this encoding cannot represent, the raw bytes are written
            sys.stdout.flush()
            sys.stdout.buffer.write(os.fsencode(text + "\n"))


def warn(text: str) -> None:
    """Prints messages on standard error; escapes control characters in file names."""
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()


def harmless(text: str) -> str:
    """Returns the same lines with control characters escaped."""
    return "\n".join(printable(line) for line in text.split("\n"))


class HarmlessFormatter(logging.Formatter):
    """Formats log messages like `warn`."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


def log_to_errors() -> None:
    """Sends logged warnings to standard error, without a date."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HarmlessFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def output_errors(kept: Path | None = None) -> Generator[None, None, None]:
    """Flushes standard output at the end of the block; raises the same errors as `tell`."""
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
    """Discards the buffer, since flushing it at exit would fail again."""
    sys.stdout = _nowhere()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


class Forgiving:
    """A wrapper for standard error that drops lines it is unable to write, so the work continues."""

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
    """Makes standard error forgiving for the rest of the process, up to Python's own flush at exit."""
    if not isinstance(sys.stderr, Forgiving):
        sys.stderr = Forgiving(sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
