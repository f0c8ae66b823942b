"""Which pictures of which requests are already there, so that a stopped file of prompts goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modules.core.errors import OutputError
from modules.core.progress import CancelToken
from modules.core.typed import Unreadable, build, parse_json_object
from modules.gallery.output import OutputFolder
from modules.generation.metadata.named_files import is_there
from modules.generation.named_models import model_files
from modules.generation.options import MAX_SEED, GenerationOptions, random_seed
from modules.generation.progress import OnProgress
from modules.generation.session import Session
from modules.generation.text_to_image import generate

RECORD = "prompts_done.jsonl"
ROUNDING_ONLY = ("stable_fast",)  # how fast, not which picture


@dataclass(frozen=True, kw_only=True)
class SavedPicture:
    """One picture of a request; `fresh` when it was made now rather than found."""

    path: Path
    seed: int
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the file; `path` counts from the output folder."""

    request: str
    picture: int
    seed: int
    path: Path


class PromptRecord:
    """One line in the output folder for each saved picture: whose request, which of its pictures, seed and place.

    A request is known by everything that decides its pictures, files included: when an option, a model or an input
    picture changed, it is another request. The same request again in one file is the second of its kind.
    """

    def __init__(self, output: OutputFolder) -> None:
        self._output = output
        self._file = output.folder / RECORD
        self._asked: Counter[str] = Counter()
        self._seeds: dict[str, int] = {}
        self._paths: dict[tuple[str, int], Path] = {}
        self._read()

    def _read(self) -> None:
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.exists() else ""
        for line in text.splitlines():
            try:
                entry = build(Entry, parse_json_object(line))
            except Unreadable:
                continue  # the end of a line that was being written when the machine stopped
            request, picture, seed = entry.request, entry.picture, entry.seed
            path = self._output.folder / entry.path
            if 0 <= seed <= MAX_SEED and is_there(path) and path.is_file():
                self._seeds[request] = seed
                self._paths[request, picture] = path

    def pictures(
        self,
        options: GenerationOptions,
        session: Session,
        *,
        on_progress: OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> Iterator[SavedPicture]:
        """Every picture of the request in order: those that are there, and the others as they are made and saved."""
        request = self._name(options, session)
        seed = options.seed if options.seed is not None else self._seeds.get(request)
        options = replace(options, seed=random_seed() if seed is None else seed)
        for batch in range(options.number):
            yield from self._batch(request, options, batch, session, on_progress, cancel)

    def _batch(
        self,
        request: str,
        options: GenerationOptions,
        batch: int,
        session: Session,
        on_progress: OnProgress | None,
        cancel: CancelToken | None,
    ) -> Iterator[SavedPicture]:
        seed, indices = options.seed or 0, _kept_of_batch(options, batch)
        versions = 2 if options.hires is not None and options.hires.keep_first_pass else 1
        numbers = [index * versions + version for version in range(versions) for index in indices]
        found = {number: self._paths.get((request, number)) for number in numbers}
        first = batch * options.batch
        if all(found.values()):
            for number, path in found.items():
                if path is not None:
                    yield SavedPicture(path=path, seed=seed + number // versions, fresh=False)
            return
        only = None if options.only is None else options.only - first
        part = replace(options, number=1, seed=seed + first, only=only)
        made = generate(part, session, on_progress=on_progress, cancel=cancel)
        for number, picture in zip(numbers, made, strict=True):
            path = found[number]
            if path is None:
                saved = self._output.save(replace(picture, request_seed=seed))
                self._add(request, number, seed, saved)
                yield SavedPicture(path=saved, seed=picture.seed, fresh=True)
            else:
                yield SavedPicture(path=path, seed=picture.seed, fresh=False)

    def _add(self, request: str, number: int, seed: int, path: Path) -> None:
        place = path.relative_to(self._output.folder).as_posix()
        entry = json.dumps({"request": request, "picture": number, "seed": seed, "path": place})
        try:
            # Starts with a line end, so that a line cut off by a crash spoils only itself.
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"\n{entry}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self._file} cannot be written ({error.strerror or error}); free some space or use --output-dir."
            ) from error
        self._paths[request, number] = path

    def _name(self, options: GenerationOptions, session: Session) -> str:
        identity = request_identity(options, session)
        self._asked[identity] += 1
        return f"{identity}-{self._asked[identity]}"


def _kept_of_batch(options: GenerationOptions, batch: int) -> range:
    """Numbers of the pictures that one batch gives."""
    start = batch * options.batch
    if options.only is None:
        return range(start, start + options.batch)
    inside = start <= options.only < start + options.batch
    return range(options.only, options.only + 1) if inside else range(0)


def request_identity(options: GenerationOptions, session: Session) -> str:
    """A hash of all that decides the pictures; raises the error of a model file that is not there."""
    values = {name: value for name, value in asdict(options).items() if name not in ROUNDING_ONLY}
    files = [_state(path) for path in _files(options, session)]
    text = json.dumps([values, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]


def _files(options: GenerationOptions, session: Session) -> Iterator[Path]:
    yield from model_files(options, session.folders)
    yield from options.pictures


def _state(path: Path) -> list[Any]:
    """Where a file is, its size and when it was written; a missing one is told when it is opened."""
    try:
        state = path.stat()
    except OSError:
        return [str(path.resolve())]
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
