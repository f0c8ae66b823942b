"""Reads and writes styles.csv in A1111's format: a name, a prompt and a negative prompt in each row (no torch here)."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import OptionsError, OutputError, quoted
from modules.core.files import read_text, write_whole
from modules.core.paths import ModelFolders

FILE_NAME = "styles.csv"
COLUMNS = ("name", "prompt", "negative_prompt")
OLD_COLUMNS = ("name", "text")  # as A1111 wrote them before it knew negative prompts


@dataclass(frozen=True, kw_only=True)
class Style:
    """A style from this line of the file (0 for a new one). `{prompt}` stands for the user's prompt."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""
    line: int = 0


def styles_file(folders: ModelFolders) -> Path:
    return folders.root / FILE_NAME


def read_styles(folders: ModelFolders) -> list[Style]:
    """Returns all styles, none if there is no file. Raises OptionsError with the line of a bad row."""
    path = styles_file(folders)
    if not path.exists():
        return []
    return list(_rows(path, read_text(path, "The styles file")))


def find_style(folders: ModelFolders, name: str) -> Style:
    """Returns the style of this name. Raises OptionsError if there is none, or more than one."""
    styles = read_styles(folders)
    found = list({(style.prompt, style.negative_prompt): style for style in styles if style.name == name}.values())
    if len(found) > 1:
        lines = " and ".join(str(style.line) for style in found)
        raise OptionsError(f"The style {quoted(name)} is in {styles_file(folders)} twice (lines {lines}): rename one.")
    if not found:
        raise _missing(folders, name, styles)
    return found[0]


def write_styles(folders: ModelFolders, styles: Sequence[Style]) -> None:
    """Replaces the file by these styles. Raises OutputError."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows((style.name, style.prompt, style.negative_prompt) for style in styles)
    path = styles_file(folders)
    try:
        write_whole(path, text.getvalue().encode("utf-8-sig"))  # with the mark that A1111 writes, for Excel
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); check its folder.") from error


def save_style(folders: ModelFolders, style: Style) -> None:
    """Adds a style, or replaces those of its name. Raises OptionsError for a style without name or text."""
    if not style.name.strip():
        raise OptionsError("The style has no name: enter one.")
    if not style.prompt.strip() and not style.negative_prompt.strip():
        raise OptionsError("Both prompts are empty: write what the style should add.")
    styles = read_styles(folders)
    place = next((index for index, other in enumerate(styles) if other.name == style.name), len(styles))
    others = [other for other in styles if other.name != style.name]
    write_styles(folders, [*others[:place], style, *others[place:]])


def delete_styles(folders: ModelFolders, names: Collection[str]) -> None:
    """Removes these styles from the file. Raises OptionsError for a name that is not there."""
    styles = read_styles(folders)
    for name in names:
        if all(style.name != name for style in styles):
            raise _missing(folders, name, styles)
    write_styles(folders, [style for style in styles if style.name not in names])


def _missing(folders: ModelFolders, name: str, styles: Sequence[Style]) -> OptionsError:
    return OptionsError(f"There is no style {quoted(name)} in {styles_file(folders)}{_nearest(name, styles)}.")


def _nearest(name: str, styles: Sequence[Style]) -> str:
    names = [style.name for style in styles]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"; {'nearest' if near else 'available'}: {', '.join(map(quoted, near or names[:5]))}" if names else ""


def _rows(path: Path, text: str) -> Iterator[Style]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    columns: tuple[str, ...] = ()
    while True:
        line = reader.line_num + 1  # a row may go over several lines
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise OptionsError(f"{path}, line {line}: this row cannot be read ({error}); check its quotes.") from error
        if row is None:
            return
        if not any(field.strip() for field in row):
            continue
        if not columns:
            columns = tuple(field.strip() for field in row)
            if columns not in (COLUMNS, COLUMNS[:2], OLD_COLUMNS):
                raise OptionsError(f"{path}, line {line}: the first row must be {','.join(COLUMNS)}.")
            continue
        yield _style(path, line, row, len(columns))


def _style(path: Path, line: int, row: Sequence[str], most: int) -> Style:
    if len(row) > most:
        reason = f"this row has {len(row)} fields, not {most}: put quotes around texts with commas"
        raise OptionsError(f"{path}, line {line}: {reason}.")
    if not row[0].strip():
        raise OptionsError(f"{path}, line {line}: this row has no name.")
    return Style(**dict(zip(COLUMNS, row, strict=False)), line=line)
