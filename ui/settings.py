"""The form as it was last used, kept in a JSON file between starts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import OutputError
from ui.fields import IMAGE_FIELDS


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
        return {name: usable(stored.get(name), value) for name, value in fresh.items()}

    def save(self, form: Mapping[str, Any]) -> None:
        kept = {name: value for name, value in form.items() if name not in (*IMAGE_FIELDS, "mode")}
        hidden = self.path.with_suffix(".tmp")
        try:
            hidden.write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")
            os.replace(hidden, self.path)
        except OSError as error:
            raise OutputError(f"The settings cannot be kept in {self.path} ({error.strerror}).") from error


def usable(stored: Any, default: Any) -> Any:
    """The stored value where it is of the default's kind; numbers of either type count as one kind."""
    if stored is None:
        return default
    kinds = (int, float) if isinstance(default, (int, float)) and not isinstance(default, bool) else type(default)
    if isinstance(stored, bool) != isinstance(default, bool) or (default is not None and not isinstance(stored, kinds)):
        return default
    return stored
