"""Saves the last used form in a JSON file between runs of the program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from modules.core.errors import OutputError
from modules.core.files import sweep_hidden, write_whole
from modules.core.typed import Unreadable, is_utf8, parse_json_object
from modules.gallery.uploads import reachable
from ui.fields import AUTOMATIC, CHOICES, CONTROL_IMAGES, OWN_IMAGES, RANGES

LARGEST_SETTINGS = 1 << 22  # bytes
LONGEST_FIELD = 200_000  # characters
LARGEST_FIELD = 1e9


class SettingsFile:
    """The remembered form. Damaged or outdated fields are ignored; the picture to start from is not saved.

    A ControlNet comes back with its picture, which is in the folder `pictures`, or not at all.
    """

    def __init__(self, path: Path, pictures: Path) -> None:
        self.path = path
        self.pictures = pictures

    def load(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the remembered form; missing fields and those of the wrong type come from `fresh`."""
        try:
            if not self.path.is_file():
                return dict(fresh)
            with self.path.open("rb") as file:
                return self.read(file.read(LARGEST_SETTINGS), fresh)
        except OSError:  # the file is unreadable
            return dict(fresh)

    def read(self, text: bytes | str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the form in this text from `write`, in the same way as `load`."""
        try:
            stored = parse_json_object(text)
        except Unreadable:
            return dict(fresh)
        form = {name: usable(name, stored.get(name), value) for name, value in fresh.items()}
        for net, name in CONTROL_IMAGES.items():
            image = stored.get(name)
            if isinstance(image, str) and form.get(net) and reachable(Path(image), [self.pictures]):
                form[name] = image
            elif form.get(net):
                form[net] = AUTOMATIC
        return form

    def write(self, form: Mapping[str, Any]) -> str:
        kept = {name: value for name, value in form.items() if name not in (*OWN_IMAGES, "mode")}
        return json.dumps(kept, indent=1, ensure_ascii=False)

    def save(self, form: Mapping[str, Any]) -> None:
        try:
            sweep_hidden(self.path.parent)
            write_whole(self.path, self.write(form).encode())
        except (OSError, UnicodeError) as error:
            raise OutputError(f"The settings cannot be saved in {self.path} ({error}).") from error


def usable(name: str, stored: Any, default: Any) -> Any:
    """Returns the stored value if its type, choices and range are valid for the field, or else the default."""
    if stored is None or not fits(stored, default) or (name in CHOICES and stored not in CHOICES[name]):
        return default
    if isinstance(stored, list):
        return stored
    low, high = RANGES.get(name, (-LARGEST_FIELD, LARGEST_FIELD))
    return stored if isinstance(stored, str) or low <= stored <= high else default


def fits(value: Any, default: Any) -> bool:
    """Tells whether a value has the default's type and an acceptable size; None stands for an empty number field."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, str):
        return isinstance(value, str) and len(value) <= LONGEST_FIELD and is_utf8(value)
    if isinstance(default, list):
        return isinstance(value, list) and all(fits(item, "") for item in cast("list[Any]", value))
    if value is None:
        return default is None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST_FIELD
