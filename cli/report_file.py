"""Where --stable-fast-report goes: looked at before the work, written after it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.errors import OptionsError, OutputError
from modules.core.paths import ALL_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modules.stable_fast import Report

STANDARD_OUTPUT = Path("-")
NO_REPORT = (*ALL_SUFFIXES, ".png", ".jpg", ".jpeg", ".webp")  # a slip of the hand must not cost a model or a picture


def check_report_file(given: Mapping[str, Any]) -> None:
    """Raises now what would otherwise come after the work; leaves nothing behind."""
    path: Path | None = given.get("stable_fast_report")
    if path is None:
        return
    if path == STANDARD_OUTPUT:
        if given.get("json"):
            raise OptionsError("--stable-fast-report - and --json both want standard output: give the report a file.")
        return
    if path.suffix.lower() in NO_REPORT:
        raise OptionsError(f"--stable-fast-report {path}: a report is text, so let its name end in .txt or .json.")
    try:
        if path.is_fifo():  # opening it would end its reader
            return
        is_new = not path.exists()
        with path.open("a"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise cannot_be_written(path, error) from error


def write_report(path: Path, report: Report) -> None:
    if path == STANDARD_OUTPUT:
        sys.stdout.write(report.to_text() + "\n")
        return
    text = report.to_json() if path.suffix.lower() == ".json" else report.to_text()
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_be_written(path, error) from error


def cannot_be_written(path: Path, error: OSError) -> OutputError:
    return OutputError(f"The report cannot be written to {path} ({error.strerror or error}); choose another place.")
