"""Reads what other programs keep beside a model file: a picture of it, and A1111's and Civitai's texts (no torch)."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modules.catalog.headers import read_json_object
from modules.catalog.model_facts import stated_family, unlike

PICTURE_FORMATS = ("png", "jpg", "jpeg", "webp")
PICTURE_ENDINGS = tuple(f"{middle}.{ending}" for middle in ("", ".preview") for ending in PICTURE_FORMATS)
TEXT_ENDINGS = (".json", ".civitai.info")
LARGEST_WEIGHT = 10.0


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What the files beside a model say; `weight` is None if they do not name one."""

    words: tuple[str, ...] = ()
    weight: float | None = None
    family: str = ""


def read_sidecar(path: Path) -> Sidecar:
    """Reads A1111's `name.json` and Civitai's `name.civitai.info`; damaged ones count as absent."""
    ours, theirs = (read_json_object(path.with_name(stem_of(path) + ending)) for ending in TEXT_ENDINGS)
    text, listed = ours.get("activation text"), theirs.get("trainedWords")
    words = [text] if isinstance(text, str) else []
    words += [word for word in listed if isinstance(word, str)] if isinstance(listed, list) else []
    return Sidecar(
        words=unlike(words),
        weight=_weight(ours.get("preferred weight")),
        family=stated_family(theirs.get("baseModel"), ours.get("sd version")),
    )


def picture_beside(path: Path, names: Collection[str]) -> Path | None:
    """Returns the picture of a model among the file names of its folder. A link that leaves the folder is ignored."""
    found = next((stem_of(path) + end for end in PICTURE_ENDINGS if stem_of(path) + end in names), None)
    if found is None:
        return None
    picture = path.with_name(found)
    is_here = picture.is_file() and picture.resolve().parent == picture.parent.resolve()
    return picture if is_here else None


def picture_of(path: Path) -> Path | None:
    """Returns the picture beside a model file, None if there is none."""
    return picture_beside(path, names_in(path.parent))


def names_in(folder: Path) -> frozenset[str]:
    """Returns the names in a folder; none if it cannot be read."""
    with suppress(OSError):
        return frozenset(os.listdir(folder))
    return frozenset()


def stem_of(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _weight(value: object) -> float | None:
    """Reads A1111's weight; 0 there means that the user named none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < abs(value) <= LARGEST_WEIGHT:
        return None
    return round(float(value), 3)
