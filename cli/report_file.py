"""Checks the file for --stable-fast-report before generation, and writes it afterwards."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.streams import tell
from cli.values import path
from modules.core.errors import OptionsError, OutputError
from modules.core.paths import ALL_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modules.stable_fast.report import Report

STANDARD_OUTPUT = Path("-")
TEXT = ".txt"  # wildcards and reports
# A typo must not overwrite a model or a picture.
NO_REPORT = (*(suffix for suffix in ALL_SUFFIXES if suffix != TEXT), ".png", ".jpg", ".jpeg", ".webp")


def read_report_path(text: str) -> Path:
    """Reads the value of --stable-fast-report. Raises OptionsError if it is empty, since Path("") means this folder."""
    if not text:
        raise OptionsError("--stable-fast-report needs the name of a file, or - for standard output.")
    return path(text)


def check_report_file(given: Mapping[str, Any]) -> None:
    """Raises errors early that would otherwise appear after the work; leaves no files behind."""
    path: Path | None = given.get("stable_fast_report")
    if path is None:
        return
    if path == STANDARD_OUTPUT:
        if given.get("json"):
            raise OptionsError("--stable-fast-report - and --json both use standard output: give the report a file.")
        return
    if path.suffix.lower() in NO_REPORT:
        raise OptionsError(
            f"--stable-fast-report {shown(path)}: a report is text, so its name must end in .txt or .json."
        )
    try:
        if path.is_fifo():  # opening and closing it would end the reader
            return
        for name, file in files_read(given):
            if path.is_file() and file.is_file() and path.samefile(file):
                option = f"--{name.replace('_', '-')}"
                raise OptionsError(
                    f"--stable-fast-report would overwrite {shown(path)}, which {option} reads: give it another name."
                )
        try_to_write(path)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def try_to_write(path: Path) -> None:
    """Raises OSError if a report could not be written."""
    is_new = not path.exists()
    with path.open("a"):
        pass
    if is_new:
        path.unlink()
    if is_new or path.is_file():
        with tempfile.TemporaryFile(dir=path.resolve().parent):  # reports are first written to a temporary file
            pass


def files_read(given: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Lists the files used by the request, each with its argument."""
    for name, value in given.items():
        if name not in ("stable_fast_report", "output_dir"):
            yield from (
                (name, item) for item in (value if isinstance(value, list) else [value]) if isinstance(item, Path)
            )


def write_report(path: Path, report: Report) -> None:
    if path == STANDARD_OUTPUT:
        tell(report.to_text())
        return
    from modules.core.files import write_whole

    text = report.to_json() if path.suffix.lower() == ".json" else report.to_text()
    try:
        if path.exists() and not path.is_file():  # a pipe or a device accepts any text
            path.write_text(text + "\n", encoding="utf-8")
        else:
            write_whole(path.resolve(), f"{text}\n".encode())
    except OSError as error:
        raise cannot_be_written(path, error) from error


def cannot_be_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"The report cannot be written to {shown(path)} ({error.strerror or error}); choose another place."
    )


def shown(path: Path) -> str:
    """Returns the path unchanged, or quoted if it would not fit on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)
