"""Makes a card of each model file: its name, family, trigger words and picture (no torch here)."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modules.catalog.model_facts import ModelFacts, model_facts
from modules.catalog.sidecars import TEXT_ENDINGS, Sidecar, names_in, picture_beside, picture_of, read_sidecar, stem_of
from modules.core.paths import ALL_SUFFIXES, ModelFolders

CARD_KINDS = ("loras", "embeddings", "checkpoints")
Stamp = tuple[tuple[int, int], ...]  # time and size of a model file and of the texts beside it


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model file as a user knows it. `called` is how a prompt calls it; `weight` is a LoRA's usual strength."""

    kind: str
    name: str
    called: str
    folder: str
    family: str
    width: int | None
    details: tuple[str, ...]
    words: tuple[str, ...]
    weight: float
    picture: Path | None


class ModelCards:
    """The cards of all model files. A file is read again only when its time, its size or a text beside it changes."""

    def __init__(self, folders: ModelFolders) -> None:
        self._folders = folders
        self._read: dict[tuple[Path, str], tuple[Stamp, ModelFacts, Sidecar]] = {}

    def all(self) -> list[Card]:
        return [card for kind in CARD_KINDS for card in self.of_kind(kind)]

    def of_kind(self, kind: str) -> list[Card]:
        paths = self._folders.paths(kind)
        called = prompt_names(list(paths))
        beside = {folder: names_in(folder) for folder in {path.parent for path in paths.values()}}
        return [self._card(kind, name, called[name], path, beside[path.parent]) for name, path in paths.items()]

    def picture(self, kind: str, name: str) -> Path | None:
        """Returns the picture beside a listed model file; None for a name that is not listed."""
        path = self._folders.paths(kind).get(name) if kind in CARD_KINDS else None
        return None if path is None else picture_of(path)

    def _card(self, kind: str, name: str, called: str, path: Path, beside: frozenset[str]) -> Card:
        facts, sidecar = self._facts(kind, path, beside)
        parent = PurePosixPath(name).parent
        return Card(
            kind=kind,
            name=name,
            called=called,
            folder="" if parent == PurePosixPath(".") else str(parent),
            family=facts.family or sidecar.family,
            width=facts.width,
            details=facts.details,
            words=sidecar.words or facts.words,
            weight=1.0 if sidecar.weight is None else sidecar.weight,
            picture=picture_beside(path, beside),
        )

    def _facts(self, kind: str, path: Path, beside: frozenset[str]) -> tuple[ModelFacts, Sidecar]:
        texts = [name for ending in TEXT_ENDINGS if (name := stem_of(path) + ending) in beside]
        stamp = tuple(time_and_size(file) for file in (path, *(path.with_name(name) for name in texts)))
        known = self._read.get((path, kind))
        if known is not None and known[0] == stamp:
            return known[1:]
        facts, sidecar = model_facts(path, kind), read_sidecar(path) if texts else Sidecar()
        self._read[path, kind] = (stamp, facts, sidecar)
        return facts, sidecar


def prompt_names(names: list[str]) -> dict[str, str]:
    """Returns how a prompt calls each listed file: without folder or ending, where that fits no other file."""
    spellings = {name: (_without_ending(name).rpartition("/")[2], _without_ending(name), name) for name in names}
    count = Counter(spelling.casefold() for tried in spellings.values() for spelling in set(tried))
    return {name: next((one for one in tried if count[one.casefold()] == 1), name) for name, tried in spellings.items()}


def _without_ending(name: str) -> str:
    return next((name[: -len(end)] for end in ALL_SUFFIXES if name.lower().endswith(end)), name)


def time_and_size(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        state = path.stat()
        return state.st_mtime_ns, state.st_size
    return 0, 0
