"""The page's queue in front of a pool: as many tasks run at once as there are workers.

It does not import Ray, since what opens the pool has to prepare that import (modules/cluster/environment.py).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, NoReturn

from modules.gallery.output import OutputFolder
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory

if TYPE_CHECKING:
    from modules.cluster.pool import WorkerPool


class PoolQueue(TaskQueue):
    """Sends each task to a worker, and saves what comes back on this machine."""

    def __init__(self, opened: AbstractContextManager[WorkerPool], output: OutputFolder) -> None:
        """Opens the pool, and closes it with the queue. Raises OptionsError if there is no cluster."""
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(opened)
        super().__init__(no_session, output, threads=self._pool.size)

    @property
    def status(self) -> str:
        """How many workers are ready, in words."""
        return f"{len(self._pool.up)} of {self._pool.size} workers are ready"

    def can_skip(self, queued: QueuedTask) -> bool:
        """Returns False: a worker can be told to stop a task, but not to leave out a part of it."""
        return False

    def close(self) -> None:
        """Stops the running tasks after their step, drops the waiting ones, and ends the workers."""
        super().close()
        self._stack.close()

    def _run(self, queued: QueuedTask) -> None:
        queued.cancel.check()
        queued.begin()
        if isinstance(queued.task, FreeMemory):
            self._pool.free()
            return
        (queued.output or self._output).check_writable()
        for made in self._pool.run(queued.task, queued.on_progress, queued.cancel):
            self._writer.save(queued, made)


def no_session() -> NoReturn:
    raise RuntimeError("the sessions of a cluster are in its workers")
