"""A1111's names of models: titles with a hash in brackets, and words that mean "no other one"."""

from __future__ import annotations

import re

from modules.core.paths import ModelFolders

_HASH = re.compile(r"\s*\[[0-9a-fA-F]{6,64}\]$")
NO_OTHER = ("", "none", "automatic")


def plain_name(title: str) -> str:
    """Removes the hash that A1111 writes after a model's name: `model.safetensors [6ce0161689]`."""
    return _HASH.sub("", title.strip())


def found_name(folders: ModelFolders, kind: str, title: str) -> str | None:
    """Returns the model's name, or None for "None" and "Automatic". Raises ModelFileError if there is no such file."""
    name = plain_name(title)
    if name.casefold() in NO_OTHER:
        return None
    folders.find(kind, name)
    return name
