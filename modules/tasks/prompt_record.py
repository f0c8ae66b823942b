"""Records the finished pictures of a prompt file, so that an interrupted run can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modules.core.errors import OutputError
from modules.core.progress import CancelToken
from modules.core.typed import Unreadable, build, parse_json_object
from modules.gallery.output import OutputFolder
from modules.gallery.picture import Picture
from modules.generation.checks.model_files import model_files
from modules.generation.metadata.named_files import is_there
from modules.generation.options import MAX_SEED, GenerationOptions, random_seed
from modules.generation.progress import OnProgress
from modules.generation.session import Session
from modules.generation.text_to_image import generate

RECORD = "prompts_done.jsonl"
ROUNDING_ONLY = ("stable_fast",)  # options that change pictures only by rounding


@dataclass(frozen=True, kw_only=True)
class SavedPicture:
    """A picture of a request; `fresh` means that it was made in this run, not found on disk."""

    path: Path
    seed: int
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class RecordLine:
    """One line of the file; `path` is relative to the output folder."""

    request: str
    picture: int
    seed: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of a request: `options` is a request for this batch alone, `seed` the seed of the whole request.

    `numbers` are the positions of its pictures among all pictures of the request. Each seed has `versions` pictures.
    """

    options: GenerationOptions
    seed: int
    versions: int
    numbers: tuple[int, ...]


class PromptRecord:
    """A file in the output folder with one line for each saved picture: its request, number, seed and path.

    A request is identified by everything that determines its pictures, including files. If an option, a model or an
    input picture changes, it is a different request. A request repeated in one file also counts as a different one.
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
                entry = build(RecordLine, parse_json_object(line))
            except Unreadable:
                continue  # a line that was still being written when the machine stopped
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
        """Yields every picture of the request, in order. Makes and saves the missing ones."""
        request = self._name(options, session)
        seed = options.seed if options.seed is not None else self._seeds.get(request)
        for batch in _batches(options, random_seed() if seed is None else seed):
            found = self._found(request, batch)
            if len(found) == len(batch.numbers):
                yield from found
            else:
                made = generate(batch.options, session, on_progress=on_progress, cancel=cancel)
                yield from self._save_missing(request, batch, made)

    def _found(self, request: str, batch: Batch) -> list[SavedPicture]:
        """Returns the existing pictures of the batch."""
        return [
            SavedPicture(path=path, seed=batch.seed + number // batch.versions, fresh=False)
            for number in batch.numbers
            if (path := self._paths.get((request, number))) is not None
        ]

    def _save_missing(self, request: str, batch: Batch, made: Iterable[Picture]) -> Iterator[SavedPicture]:
        for number, picture in zip(batch.numbers, made, strict=True):
            known = self._paths.get((request, number))
            yield SavedPicture(
                path=known or self._save(request, number, replace(picture, request_seed=batch.seed)),
                seed=picture.seed,
                fresh=known is None,
            )

    def _save(self, request: str, number: int, picture: Picture) -> Path:
        path = self._output.save(picture)
        self._add(request, number, picture.request_seed, path)
        return path

    def _add(self, request: str, number: int, seed: int, path: Path) -> None:
        place = path.relative_to(self._output.folder).as_posix()
        entry = json.dumps({"request": request, "picture": number, "seed": seed, "path": place})
        try:
            # The entry starts with a newline, so that a line cut off by a crash damages only itself.
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


def _batches(options: GenerationOptions, seed: int) -> Iterator[Batch]:
    versions = 2 if options.hires is not None and options.hires.keep_first_pass else 1
    for first in range(0, options.images, options.batch):
        indices = range(first, first + options.batch)
        kept = [index for index in indices if options.only in (None, index)]
        only = None if options.only is None or not kept else options.only - first
        yield Batch(
            options=replace(options, number=1, seed=seed + first, only=only),
            seed=seed,
            versions=versions,
            numbers=tuple(index * versions + version for version in range(versions) for index in kept),
        )


def request_identity(options: GenerationOptions, session: Session) -> str:
    """Hashes everything that determines the pictures. Raises ModelFileError for a missing model."""
    values = {name: value for name, value in asdict(options).items() if name not in ROUNDING_ONLY}
    files = [_state(path) for path in _files(options, session)]
    text = json.dumps([values, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]


def _files(options: GenerationOptions, session: Session) -> Iterator[Path]:
    yield from model_files(options, session.folders)
    yield from options.pictures


def _state(path: Path) -> list[Any]:
    """Returns a file's path, size and modification time. A missing file is reported later, when it is opened."""
    try:
        state = path.stat()
    except OSError:
        return [str(path.resolve())]
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
