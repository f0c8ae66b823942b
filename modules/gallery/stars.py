"""Remembers which pictures of an output folder are starred, in a small JSON file in this folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from modules.core.errors import OptionsError, OutputError, quoted
from modules.core.files import read_text, write_whole
from modules.core.typed import Unreadable, build, parse_json_object

STARS = "stars.json"


@dataclass(frozen=True, kw_only=True)
class StarList:
    """The content of the file: the starred pictures by name, for example `2026-11-28/00001-5.png`."""

    starred: tuple[str, ...]


class Stars:
    """The stars of one output folder. The file is read each time, since other programs may change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / STARS
        self._lock = threading.Lock()

    def name(self, picture: Path) -> str:
        """Returns the name of a picture in the list. Raises OptionsError for a file outside the folder."""
        try:
            return picture.relative_to(self.folder).as_posix()
        except ValueError:
            raise OptionsError(
                f"{quoted(picture.name)} is not in the output folder, so it cannot be starred."
            ) from None

    def has(self, picture: Path) -> bool:
        """Tells whether a picture is starred. Raises OptionsError like `name` and `names`."""
        return self.name(picture) in self.names()

    def names(self) -> frozenset[str]:
        """Returns the names of the starred pictures. Raises OptionsError for a file that is not such a list."""
        if not self.path.exists():
            return frozenset()
        try:
            text = read_text(self.path, "The list of starred pictures")
            return frozenset(build(StarList, parse_json_object(text)).starred)
        except Unreadable as error:
            raise OptionsError(
                f"The list of starred pictures {quoted(self.path)} cannot be used because {error}; "
                "correct the file, or move it away to start without stars."
            ) from error

    def set(self, pictures: Iterable[Path], *, starred: bool) -> None:
        """Stars these pictures, or removes their stars. Raises OptionsError like `names`, or OutputError.

        A list that is unreadable is never replaced.
        """
        changed = {self.name(picture) for picture in pictures}
        with self._lock:
            before = self.names()
            after = before | changed if starred else before - changed
            if after != before:
                self._write(after)

    def _write(self, names: Iterable[str]) -> None:
        text = json.dumps(asdict(StarList(starred=tuple(sorted(names)))), indent=1)
        try:
            write_whole(self.path, text.encode())
        except OSError as error:
            raise OutputError(f"The stars cannot be saved in {self.path} ({error.strerror or error}).") from error
