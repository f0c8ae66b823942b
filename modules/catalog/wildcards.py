"""Reads the lines of a wildcard file (no torch here)."""

from __future__ import annotations

from pathlib import Path

from modules.core.errors import ModelFileError, OptionsError, quoted
from modules.core.files import read_text
from modules.core.paths import ModelFolders

COMMENT = "#"


def wildcard_file(folders: ModelFolders, name: str) -> Path:
    """Finds the file of `__name__`. Raises ModelFileError, with a way to write plain text, if there is none."""
    try:
        return folders.find("wildcards", name)
    except ModelFileError as error:
        plain = f"\\__{name}__"
        raise ModelFileError(f"{error} For plain text write {quoted(plain)}.") from error


def wildcard_lines(folders: ModelFolders, name: str) -> list[str]:
    """Returns the lines of `__name__` without empty ones and comments (#).

    Raises ModelFileError for a missing file, OptionsError for one that cannot be read or has no line.
    """
    path = wildcard_file(folders, name)
    lines = [line.strip() for line in read_text(path, "The wildcard file").splitlines()]
    kept = [line for line in lines if line and not line.startswith(COMMENT)]
    if not kept:
        raise OptionsError(f"There is no line in the wildcard file {quoted(path)}: write one choice on each line.")
    return kept
