"""Keeps forms under names, each as a JSON file in one folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError, OutputError, quoted
from modules.core.typed import is_utf8
from ui.fields import IMAGE_FIELDS
from ui.settings import SettingsFile

NAME = re.compile(r"\w(?:[\w .()+-]{0,58}[\w)+-])?")  # no separators of paths, and no dot at either end
MOST_LISTED = 500


class Presets:
    """The presets in `folder`. They hold no pictures, and so no ControlNet, which needs one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Lists the presets by name; empty if there is no such folder."""
        found = sorted(path.stem for path in self.folder.glob("*.json") if NAME.fullmatch(path.stem))
        return [name for name in found if is_utf8(name)][:MOST_LISTED]

    def save(self, name: str, form: Mapping[str, Any]) -> bool:
        """Writes a preset, and returns whether it replaces one. Raises OptionsError or OutputError."""
        path = self._path(name)
        replaces = path.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Presets cannot be kept in {self.folder} ({error.strerror or error}).") from error
        self._file(path).save({**form, **dict.fromkeys(IMAGE_FIELDS)})
        return replaces

    def load(self, name: str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a preset without pictures; fields that are damaged come from `fresh`. Raises OptionsError."""
        form = self._file(self._existing(name)).load(fresh)
        return {key: value for key, value in form.items() if key not in (*IMAGE_FIELDS, "mode")}

    def delete(self, name: str) -> None:
        """Deletes a preset. Raises OptionsError or OutputError."""
        path = self._existing(name)
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path} could not be deleted ({error.strerror or error}).") from error

    def _file(self, path: Path) -> SettingsFile:
        return SettingsFile(path, self.folder)

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name) or not is_utf8(name):
            raise OptionsError("A preset's name has up to 60 letters, digits, spaces, or ( ) + - . between them.")
        return self.folder / f"{name}.json"

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_file():
            raise OptionsError(f"There is no preset called {quoted(name)}.")
        return path
