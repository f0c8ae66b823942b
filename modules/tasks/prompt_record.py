"""Records the finished pictures of a prompt file, so that an interrupted run can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modules.core.errors import OutputError
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken
from modules.core.typed import Unreadable, build, parse_json_object
from modules.gallery.output import DAY, OutputFolder
from modules.gallery.picture import EncodedPicture, Picture
from modules.generation.checks.model_files import model_files
from modules.generation.metadata.named_files import DIGITS, Fingerprints, is_there
from modules.generation.options import MAX_SEED, GenerationOptions, random_seed
from modules.generation.progress import OnProgress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.generation.wording.spelled_out import first_picture, spelled_out, wildcard_files, with_styles

RECORD = "prompts_done.jsonl"
Make = Callable[[GenerationOptions], Iterable[Picture | EncodedPicture]]  # makes the pictures of one batch
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
class SavingLine:
    """A line written before a picture is saved, so that a kill before its RecordLine does not lose the picture.

    `own_seed` is in the file's name, `sha256` is the start of that of its bytes.
    """

    request: str
    picture: int
    seed: int
    own_seed: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of a request: `options` is a request for this batch alone, `seed` the seed of the whole request.

    `request` names the request in the record. `numbers` are the positions of its pictures among all pictures of the
    request. Each seed has `versions` pictures.
    """

    request: str
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
        self._writing = threading.Lock()  # workers of a cluster finish pictures at the same time
        self._read()

    def _read(self) -> None:
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.exists() else ""
        begun: dict[tuple[str, int], SavingLine] = {}
        for entry in filter(None, map(_entry, text.splitlines())):
            if isinstance(entry, SavingLine):
                begun[entry.request, entry.picture] = entry
            else:
                begun.pop((entry.request, entry.picture), None)
                self._remember(entry, self._output.folder / entry.path)
        for entry in begun.values():
            path = self._saved_file(entry)
            if path is not None:
                self._remember(entry, path)

    def _remember(self, entry: RecordLine | SavingLine, path: Path) -> None:
        if 0 <= entry.seed <= MAX_SEED and is_there(path) and path.is_file():
            self._seeds[entry.request] = entry.seed
            self._paths[entry.request, entry.picture] = path

    def _saved_file(self, entry: SavingLine) -> Path | None:
        """Finds the file of a picture that was saved just before a kill."""
        named = self._output.folder.glob(f"{DAY}/*-{entry.own_seed}.png")
        known = Fingerprints()
        return next((path for path in named if known.of(path) == entry.sha256), None)

    def pictures(
        self,
        options: GenerationOptions,
        session: Session,
        *,
        on_progress: OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> Iterator[SavedPicture]:
        """Yields every picture of the request, in order. Makes and saves the missing ones."""

        def make(batch: GenerationOptions) -> Iterator[Picture]:
            return generate(batch, session, on_progress=on_progress, cancel=cancel)

        for batch in self.batches(options, session.folders):
            yield from self.complete(batch, make)

    def batches(self, options: GenerationOptions, folders: ModelFolders) -> list[Batch]:
        """Returns the batches of the request, each with its seed. Raises ModelFileError for a missing model."""
        identity = request_identity(options, folders)
        self._asked[identity] += 1
        request = f"{identity}-{self._asked[identity]}"
        seed = options.seed if options.seed is not None else self._seeds.get(request)
        size = 1 if spelled_out(options, folders).varies else options.batch
        return list(_batches(request, options, random_seed() if seed is None else seed, size))

    def complete(self, batch: Batch, make: Make) -> Iterator[SavedPicture]:
        """Yields every picture of the batch, in order. If one is missing, makes the batch and saves what is missing."""
        found = self._found(batch)
        if len(found) == len(batch.numbers):
            yield from found
        else:
            yield from self._save_missing(batch, make(batch.options))

    def _found(self, batch: Batch) -> list[SavedPicture]:
        """Returns the existing pictures of the batch."""
        return [
            SavedPicture(path=path, seed=batch.seed + number // batch.versions, fresh=False)
            for number in batch.numbers
            if (path := self._paths.get((batch.request, number))) is not None
        ]

    def _save_missing(self, batch: Batch, made: Iterable[Picture | EncodedPicture]) -> Iterator[SavedPicture]:
        for number, picture in zip(batch.numbers, made, strict=True):
            known = self._paths.get((batch.request, number))
            yield SavedPicture(
                path=known or self._save(batch.request, number, replace(picture, request_seed=batch.seed)),
                seed=picture.seed,
                fresh=known is None,
            )

    def _save(self, request: str, number: int, picture: Picture | EncodedPicture) -> Path:
        encoded = picture.encoded()
        names = {"request": request, "picture": number, "seed": picture.request_seed}
        with self._writing:
            self._append({**names, "own_seed": picture.seed, "sha256": _sha256(encoded.png)})
            path = self._output.save(encoded)
            self._append({**names, "path": path.relative_to(self._output.folder).as_posix()})
            self._paths[request, number] = path
        return path

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # The entry starts with a newline, so that a line cut off by a crash damages only itself.
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(entry)}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self._file} cannot be written ({error.strerror or error}); free some space or use --output-dir."
            ) from error


def _entry(line: str) -> RecordLine | SavingLine | None:
    """Reads a line; None for one that was still being written when the machine stopped."""
    try:
        values = parse_json_object(line)
        return build(RecordLine, values) if "path" in values else build(SavingLine, values)
    except Unreadable:
        return None


def _sha256(data: bytes) -> str:
    """Returns the same as Fingerprints for a file with these bytes."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def _batches(request: str, options: GenerationOptions, seed: int, size: int) -> Iterator[Batch]:
    """Divides the request into batches of `size` pictures."""
    versions = 2 if options.hires is not None and options.hires.keep_first_pass else 1
    for first in range(0, options.images, size):
        indices = range(first, first + size)
        kept = [index for index in indices if options.only in (None, index)]
        only = None if options.only is None or not kept else options.only - first
        yield Batch(
            request=request,
            options=replace(options, number=1, batch=size, seed=seed + first, only=only),
            seed=seed,
            versions=versions,
            numbers=tuple(index * versions + version for version in range(versions) for index in kept),
        )


def request_identity(options: GenerationOptions, folders: ModelFolders) -> str:
    """Hashes everything that determines the pictures. Raises ModelFileError for a missing model."""
    options = with_styles(options, folders)
    values = {name: value for name, value in asdict(options).items() if name not in ROUNDING_ONLY}
    files = [_state(path) for path in _files(options, folders)]
    text = json.dumps([values, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]


def _files(options: GenerationOptions, folders: ModelFolders) -> Iterator[Path]:
    yield from model_files(first_picture(options, folders), folders)
    yield from wildcard_files(options, folders)
    yield from options.pictures


def _state(path: Path) -> list[Any]:
    """Returns a file's path, size and modification time. A missing file is reported later, when it is opened."""
    try:
        state = path.stat()
    except OSError:
        return [str(path.resolve())]
    return [str(path.resolve()), state.st_size, state.st_mtime_ns]
