"""What travels between the driver and a worker, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modules.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How each worker builds its session; the fields are those of ModelFolders and Session.

    `threads` is the number of a CPU's threads for one operation; 0 lets the pool choose. All workers have the same,
    because it decides the order of sums, and so the last bits of a picture.
    """

    root: Path
    names_only: bool = False
    device: str | None = None
    dtype: str | None = None
    tuning_seconds: float = 0.0
    memory: str | None = None
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class SentPicture:
    """A picture to start from, with its file name, which the metadata of the result repeats."""

    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Order:
    """A task on its way to a worker.

    `checkpoint` is the one that the task needs, if any. `pictures` are those of the task's options, in their order.
    `hashes` belong to the task's model files, in the order of `files_of`; None leaves them unchecked, since the worker
    is on the driver's machine. `watched` tells whether someone looks at steps and previews. The first `skip` pictures
    have come already, from a worker that died.
    """

    name: str
    task: Task
    checkpoint: str | None = None
    pictures: tuple[SentPicture, ...] = ()
    hashes: tuple[str, ...] | None = None
    watched: bool = False
    skip: int = 0


@dataclass(frozen=True, kw_only=True)
class Warned:
    """A warning for the user, which was logged on the worker."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Free:
    """The worker can begin another task, while it encodes and sends the last picture of this one."""
