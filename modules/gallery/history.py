"""Manages the pictures of an output folder: lists them newest first, searches their metadata, deletes them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.core.errors import OptionsError, OutputError, quoted
from modules.core.typed import is_utf8
from modules.gallery.stars import Stars
from modules.images.save import read_parameters

INPUTS = "inputs"  # the folder of start pictures, which are not results


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture file and the generation text inside (empty if there is none)."""

    path: Path
    text: str


class History:
    """The pictures of one output folder. Each text is cached until its file changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stars = Stars(folder)
        self._texts: dict[tuple[Path, int], str] = {}

    def search(
        self,
        words: str = "",
        *,
        day: str = "",
        names: Collection[str] | None = None,
        limit: int = 60,
        skip: int = 0,
    ) -> tuple[list[Entry], int]:
        """Returns up to `limit` pictures whose text contains all the words, newest first, and the total found.

        If `day` is given, only the pictures of the subfolder with this name are searched. If `names` are given, only
        these pictures are searched; they are named as in the list of stars.
        """
        wanted = words.casefold().split()
        paths = [path for path in self.paths() if day in ("", path.parent.name)]
        if names is not None:
            paths = [path for path in paths if self.stars.name(path) in names]
        found = [path for path in paths if not wanted or self._matches(path, wanted)]
        return [Entry(path=path, text=self.text(path)) for path in found[skip : skip + limit]], len(found)

    def paths(self) -> list[Path]:
        """Lists all pictures, newest first."""
        return sorted(self._files(), key=lambda path: (path.parent.name, path.name), reverse=True)

    def days(self) -> dict[str, int]:
        """Counts the pictures of each day, newest day first. The keys are names of subfolders: `2026-11-28`."""
        return dict(Counter(path.parent.name for path in self.paths()))

    def text(self, path: Path) -> str:
        try:
            key = (path, path.stat().st_mtime_ns)
            if key not in self._texts:
                self._texts[key] = read_text(path)
            return self._texts[key]
        except OSError:  # deleted in the meantime
            return ""

    def delete(self, path: Path) -> None:
        """Permanently deletes a picture of this folder and its star; see `delete_all`."""
        self.delete_all([path])

    def delete_all(self, paths: Sequence[Path]) -> None:
        """Permanently deletes pictures of this folder and their stars, one after the other.

        Raises OptionsError before any deletion for a file that is not a picture of this folder, and if the list of
        stars is unreadable. Raises OutputError for the first picture that cannot be deleted; the next ones stay.
        """
        self.stars.names()
        known = {os.path.realpath(path): path for path in self.paths()}
        for path in paths:
            if os.path.realpath(path) not in known:
                raise OptionsError(f"{quoted(path.name)} is not a picture in the output folder, so it is not deleted.")
        listed_as = [known[os.path.realpath(path)] for path in paths]  # before they are gone
        count = 0
        try:
            for path in paths:
                delete_file(path)
                count += 1
        finally:
            self.stars.set(listed_as[:count], starred=False)  # a later picture may get the same name

    def _matches(self, path: Path, wanted: list[str]) -> bool:
        text = self.text(path).casefold()
        return all(word in text for word in wanted)

    def _files(self) -> Iterator[Path]:
        """Yields <folder>/<date>/*.png, the layout of the output folder.

        Unreadable files are left out, because the page could not show them.
        """
        for day in listed(self.folder):
            if day.name != INPUTS and os.path.isdir(day):
                yield from (path for path in listed(day) if is_picture(path))


def delete_file(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(f"{path} could not be deleted ({error.strerror or error}).") from error


def listed(folder: Path) -> list[Path]:
    """Lists a folder; returns an empty list if the folder is missing or unreadable."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def is_picture(path: Path) -> bool:
    """Tells whether this is a visible, readable .png file with a printable name."""
    is_named_so = path.suffix == ".png" and not path.name.startswith(".") and is_utf8(str(path))
    return is_named_so and os.path.isfile(path) and os.access(path, os.R_OK)


def read_text(path: Path) -> str:
    """Returns the text inside a picture file; empty for damaged files and for other programs' pictures."""
    try:
        return read_parameters(path)
    except OptionsError:
        return ""
