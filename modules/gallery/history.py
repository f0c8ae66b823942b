"""The pictures of an output folder: newest first, searched by their text, deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import OptionsError, OutputError, quoted
from modules.core.typed import is_utf8
from modules.images.save import read_parameters

INPUTS = "inputs"  # pictures to start from are kept here; they are no results


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture file and the generation text inside it (empty when it has none)."""

    path: Path
    text: str


class History:
    """Texts are read once per file and kept as long as the file does not change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._texts: dict[tuple[Path, int], str] = {}

    def search(self, words: str = "", *, limit: int = 60, skip: int = 0) -> tuple[list[Entry], int]:
        """Pictures whose text holds all the words, newest first: at most `limit` of them, and how many there are."""
        wanted = words.casefold().split()
        found = [path for path in self.paths() if not wanted or self._matches(path, wanted)]
        return [Entry(path=path, text=self.text(path)) for path in found[skip : skip + limit]], len(found)

    def paths(self) -> list[Path]:
        """All pictures, newest first."""
        return sorted(self._files(), key=lambda path: (path.parent.name, path.name), reverse=True)

    def text(self, path: Path) -> str:
        try:
            key = (path, path.stat().st_mtime_ns)
            if key not in self._texts:
                self._texts[key] = read_text(path)
            return self._texts[key]
        except OSError:  # deleted meanwhile, by us or by anyone
            return ""

    def delete(self, path: Path) -> None:
        """Removes one picture of this folder for good. Raises for anything that is not one."""
        path = Path(path)
        if os.path.realpath(path) not in {os.path.realpath(known) for known in self.paths()}:
            raise OptionsError(f"{quoted(path.name)} is no picture in the output folder, so it is not deleted.")
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path} could not be deleted ({error.strerror or error}).") from error

    def _matches(self, path: Path, wanted: list[str]) -> bool:
        text = self.text(path).casefold()
        return all(word in text for word in wanted)

    def _files(self) -> Iterator[Path]:
        """Only <folder>/<date>/*.png, as the output folder writes them. What is no regular file, or not for us to
        read, is left out: the page could not show it."""
        for day in listed(self.folder):
            if day.name != INPUTS and os.path.isdir(day):
                yield from (path for path in listed(day) if is_picture(path))


def listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it is gone, or may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def is_picture(path: Path) -> bool:
    """A visible .png file that can be read and named; anyone may have deleted or replaced it by now."""
    is_named_so = path.suffix == ".png" and not path.name.startswith(".") and is_utf8(str(path))
    return is_named_so and os.path.isfile(path) and os.access(path, os.R_OK)


def read_text(path: Path) -> str:
    """The text inside a picture file; a damaged or foreign one is listed without text."""
    try:
        return read_parameters(path)
    except OptionsError:
        return ""
