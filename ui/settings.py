"""The form as it was last used, kept in a JSON file between starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modules.core.errors import OutputError
from modules.core.files import sweep_hidden, write_whole
from ui.fields import CHOICES, IMAGE_FIELDS


class SettingsFile:
    """Damaged or outdated content is ignored field by field; pictures and the mode that needs them are not kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The remembered form, complete: what is missing or of another type is as in `fresh`."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no file yet, or not ours any more
            return dict(fresh)
        if not isinstance(stored, dict):
            return dict(fresh)
        return {name: usable(stored.get(name), value, CHOICES.get(name)) for name, value in fresh.items()}

    def save(self, form: Mapping[str, Any]) -> None:
        kept = {name: value for name, value in form.items() if name not in (*IMAGE_FIELDS, "mode")}
        try:
            sweep_hidden(self.path.parent)
            write_whole(self.path, json.dumps(kept, indent=1, ensure_ascii=False).encode())
        except (OSError, UnicodeError) as error:
            raise OutputError(f"The settings cannot be kept in {self.path} ({error}).") from error


def usable(stored: Any, default: Any, choices: Sequence[str] | None = None) -> Any:
    """The stored value where it is of the default's kind and among the choices."""
    if stored is None or not fits(stored, default) or (choices is not None and stored not in choices):
        return default
    return stored


def fits(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind; all numbers are one kind, and None stands for a number left out."""
    if isinstance(default, (bool, str)):
        return isinstance(value, type(default))
    return (value is None and default is None) or (isinstance(value, (int, float)) and not isinstance(value, bool))
