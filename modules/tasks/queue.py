"""The task queue: a single worker thread runs tasks in order, owns the models and saves the pictures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from modules.core.errors import Cancelled, LightDiffusionError, OptionsError, bug_text
from modules.gallery.output import OutputFolder
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory, Task

if TYPE_CHECKING:
    from modules.generation.session import Session

log = logging.getLogger(__name__)

MOST_WAITING = 50
MOST_KEPT = 100  # tasks in memory, finished ones included


class TaskQueue:
    """Runs one task at a time; the first task creates the session and imports torch."""

    def __init__(self, make_session: Callable[[], Session], output: OutputFolder) -> None:
        self._make_session = make_session
        self._output = output
        self._session: Session | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generation")
        self._tasks: dict[str, QueuedTask] = {}
        self._futures: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    @property
    def session(self) -> Session | None:
        """Only for showing memory and status, never for running work. None until the first task has started."""
        return self._session

    def submit(self, task: Task) -> QueuedTask:
        """Adds a task to the queue and returns at once. Raises OptionsError when too many tasks are waiting."""
        queued = QueuedTask(task=task)
        with self._lock:
            if len(self.unfinished()) >= MOST_WAITING:
                raise OptionsError(f"{MOST_WAITING} requests are waiting already; try again when some are finished.")
            self._forget_oldest()
            self._tasks[queued.id] = queued
            future = self._futures[queued.id] = self._executor.submit(self._run, queued)
        future.add_done_callback(partial(conclude, queued))
        return queued

    def find(self, task_id: str) -> QueuedTask | None:
        return self._tasks.get(task_id)

    def cancel(self, task_id: str) -> bool:
        """Stops a running task after its step and a waiting one at once; returns False for an unknown task."""
        with self._lock:
            queued, future = self._tasks.get(task_id), self._futures.get(task_id)
        if queued is None or future is None:
            return False
        queued.cancel.cancel()
        future.cancel()
        return True

    def unfinished(self) -> list[QueuedTask]:
        """Returns the running task, then the waiting ones in order."""
        return [queued for queued in list(self._tasks.values()) if not queued.finished]

    def ahead_of(self, queued: QueuedTask) -> int:
        """Counts the unfinished tasks ahead of this one."""
        unfinished = self.unfinished()
        return unfinished.index(queued) if queued in unfinished else 0

    def close(self) -> None:
        """Stops the running task after its step and drops the waiting ones."""
        for queued in self.unfinished():
            queued.cancel.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, queued: QueuedTask) -> None:
        queued.cancel.check()
        queued.begin()
        from modules.tasks.kinds import run_task  # imports torch, which a front end does not need to start

        if self._session is None:
            self._session = self._make_session()
        if not isinstance(queued.task, FreeMemory):
            self._output.check_writable()
        for made in run_task(queued.task, self._session, queued.on_progress, queued.cancel):
            queued.add(made, self._output.save(made.picture))

    def _forget_oldest(self) -> None:
        finished = [key for key, queued in self._tasks.items() if queued.finished]
        for key in finished[: max(0, len(self._tasks) - MOST_KEPT)]:
            del self._tasks[key], self._futures[key]


def conclude(queued: QueuedTask, future: Future[None]) -> None:
    """Records how the task ended; also logs any error that is not meant for users."""
    error = Cancelled("Cancelled.") if future.cancelled() else future.exception()
    if error is None:
        queued.end("done")
    elif isinstance(error, Cancelled):
        queued.end("cancelled", str(error))
    elif isinstance(error, LightDiffusionError):
        queued.end("failed", str(error))
    else:
        log.error("%s failed", type(queued.task).__name__, exc_info=error)
        queued.end("failed", bug_text(error))
