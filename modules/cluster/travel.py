"""Packs a task for another machine, and unpacks it there: names, input pictures and the hashes of model files."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from modules.cluster.messages import Order, SentPicture
from modules.core.errors import ModelFileError, OptionsError, quoted
from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import checkpoint_path, model_files
from modules.generation.metadata.lasting_names import renamed
from modules.generation.metadata.named_files import Fingerprints
from modules.generation.options import GenerationOptions, random_seed
from modules.generation.wording.spelled_out import first_picture, wildcard_files, with_styles
from modules.tasks.axes import grid_cells
from modules.tasks.task import Compare, DrawHint, Enlarge, MakeGrid, MakePictures, Task

WITH_OPTIONS = (MakePictures, Compare, MakeGrid)
NO_FILE = "-"  # instead of a hash


def packed(task: Task, folders: ModelFolders, known: Fingerprints | None, *, watched: bool = False) -> Order:
    """Packs the task with a fixed seed, so that a second worker makes the same pictures as the first one.

    `known` hashes the model files; None leaves them unchecked. Raises ModelFileError for a missing model, OptionsError
    for an unreadable picture.
    """
    name = secrets.token_hex(6)
    if isinstance(task, Enlarge):
        return Order(name=name, task=task, pictures=tuple(map(_sent, task.images)), watched=watched)
    if isinstance(task, DrawHint):
        return Order(name=name, task=task, pictures=(_sent(task.image),), watched=watched)
    if not isinstance(task, WITH_OPTIONS):
        return Order(name=name, task=task, watched=watched)
    options = portable(task.options, folders)
    task = replace(task, options=options)
    hashes = None if known is None else tuple(_hash(path, known) for path in files_of(task, folders))
    return Order(
        name=name,
        task=task,
        checkpoint=options.checkpoint,
        pictures=tuple(map(_sent, options.pictures)),
        hashes=hashes,
        watched=watched,
    )


def portable(options: GenerationOptions, folders: ModelFolders) -> GenerationOptions:
    """Fills in seed, checkpoint and styles, and makes the paths of models absolute.

    Raises ModelFileError for a missing file, OptionsError for an unknown style.
    """
    options = with_styles(options, folders)

    def lasting(kind: str, name: str) -> str:
        outside = folders.outside(kind, name)
        return folders.lasting_name(kind, name) if outside is None else str(outside)

    checkpoint = options.checkpoint or str(checkpoint_path(folders, None))
    seed = random_seed() if options.seed is None else options.seed
    return replace(renamed(options, lasting), checkpoint=lasting("checkpoints", checkpoint), seed=seed)


def files_of(task: Task, folders: ModelFolders) -> Iterator[Path]:
    """Yields the model files and wildcard files of a task. Raises ModelFileError for a missing one."""
    if not isinstance(task, WITH_OPTIONS):
        return
    requests = grid_cells(task.options, task.across, task.down) if isinstance(task, MakeGrid) else [task.options]
    for options in requests:
        yield from model_files(first_picture(options, folders), folders)
        yield from wildcard_files(options, folders)


def _hash(path: Path, known: Fingerprints) -> str:
    """Hashes a file, or the files of a model that is a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [known.of(file) or NO_FILE for file in files]
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def _sent(path: Path) -> SentPicture:
    try:
        return SentPicture(name=path.name, data=path.read_bytes())
    except OSError as error:
        raise OptionsError(f"{quoted(path)} cannot be read ({error.strerror or error}); check the file.") from error


@contextmanager
def unpacked(order: Order) -> Generator[Task]:
    """Returns the order's task with its pictures as files of this machine, which stay while the block runs."""
    with TemporaryDirectory(prefix="lightdiffusion-") as folder:
        paths = [_written(Path(folder) / str(place), sent) for place, sent in enumerate(order.pictures)]
        yield with_files(order.task, paths)


def _written(folder: Path, sent: SentPicture) -> Path:
    folder.mkdir()
    path = folder / sent.name
    path.write_bytes(sent.data)
    return path


def with_files(task: Task, paths: list[Path]) -> Task:
    """Returns the same task with other picture files."""
    if isinstance(task, Enlarge):
        return replace(task, images=tuple(paths))
    if isinstance(task, DrawHint):
        return replace(task, image=paths[0])
    return replace(task, options=with_pictures(task.options, paths)) if isinstance(task, WITH_OPTIONS) else task


def with_pictures(options: GenerationOptions, paths: list[Path]) -> GenerationOptions:
    """Returns the same request with other picture files, given in the order of `options.pictures`."""
    left = iter(paths)
    controls = tuple(replace(control, image=next(left)) for control in options.controls)
    init = options.init and replace(options.init, image=next(left))
    if init is not None and init.mask is not None:
        init = replace(init, mask=next(left))
    return replace(options, controls=controls, init=init)


def check_files(order: Order, task: Task, folders: ModelFolders, known: Fingerprints) -> None:
    """Raises ModelFileError if a model of the task is missing on this machine, or is not the driver's."""
    if order.hashes is None:
        return
    try:
        for path, wanted in zip(files_of(task, folders), order.hashes, strict=True):
            if _hash(path, known) != wanted:
                raise ModelFileError(f"{path} is not the file that the driver has under this name.")
    except ModelFileError as error:
        raise ModelFileError(
            f"The worker on {socket.gethostname()} cannot make this: {error} Share one models folder between the "
            "machines (docs/cluster.md)."
        ) from error
