"""The task queue: a single worker thread runs tasks in order and owns the models. Tasks that agree run together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from modules.core.errors import Cancelled, LightDiffusionError, OptionsError, OutOfMemoryError
from modules.gallery.output import OutputFolder
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory, MakePictures, Task
from modules.tasks.writer import PictureWriter

if TYPE_CHECKING:
    from modules.generation.options import GenerationOptions
    from modules.generation.session import Session

log = logging.getLogger(__name__)

MOST_WAITING = 50
MOST_IN_FLIGHT = 2  # pictures that the GPU may still compute while the next one is prepared
MOST_KEPT = 100  # tasks in memory, finished ones included


class QueueFull(OptionsError):
    """Too many tasks are waiting; the same task can be asked for again later."""


class TaskQueue:
    """Runs one task or one batch of tasks at a time; the first task creates the session and imports torch."""

    def __init__(
        self,
        make_session: Callable[[], Session],
        output: OutputFolder,
        *,
        most_together: int | None = None,
        gather_ms: float = 0.0,
        threads: int = 1,
    ) -> None:
        """`most_together` pictures of waiting tasks that agree are made in one batch (None: what suits the device).

        A task waits up to `gather_ms` milliseconds for others that agree. More `threads` than one are for a cluster.
        """
        self._make_session = make_session
        self._output = output
        self._most_together = most_together
        self._gather_seconds = gather_ms / 1000
        self._too_many: tuple[GenerationOptions | None, int] = None, 0  # for how many pictures memory ran out last
        self._session: Session | None = None
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="generation")
        self._writer = PictureWriter(output, self._make_again, self._tell_fetched)
        self._tasks: dict[str, QueuedTask] = {}
        self._futures: dict[str, Future[None]] = {}
        self._changed = threading.Condition()  # held while tasks come and go

    @property
    def session(self) -> Session | None:
        """Only for showing memory and status, never for running work. None until the first task has started."""
        return self._session

    @property
    def status(self) -> str:
        """The device and its memory in words; empty until the first task has started."""
        if self._session is None:
            return ""
        from modules.core.device import memory_report

        return f"{self._session.device} · {memory_report(self._session.device)}"

    def submit(self, task: Task, output: OutputFolder | None = None, *, has_previews: bool = True) -> QueuedTask:
        """Adds a task to the queue and returns at once. Its pictures go to `output`, by default the queue's own folder.

        Raises QueueFull when too many tasks are waiting.
        """
        queued = QueuedTask(task=task, output=output, has_previews=has_previews)
        with self._changed:
            if len(self.unfinished()) >= MOST_WAITING:
                raise QueueFull(f"{MOST_WAITING} requests are waiting already; try again when some are finished.")
            self._forget_oldest()
            self._tasks[queued.id] = queued
            future = self._futures[queued.id] = self._executor.submit(self._run, queued)
            self._changed.notify_all()
        future.add_done_callback(partial(self._ended, queued))
        return queued

    def find(self, task_id: str) -> QueuedTask | None:
        return self._tasks.get(task_id)

    def cancel(self, task_id: str) -> bool:
        """Stops a running task after its step, and at once one that waits or is made together with others.

        Returns False for an unknown task.
        """
        with self._changed:
            queued, future = self._tasks.get(task_id), self._futures.get(task_id)
            if queued is None or future is None:
                return False
            queued.cancel.cancel()
            self._changed.notify_all()
            if not future.cancel() and queued.in_batch and not queued.finished:
                self._writer.end(queued, Cancelled("Cancelled."))
            return True

    def can_skip(self, queued: QueuedTask) -> bool:
        """Returns whether the task makes pictures now, one batch after the other."""
        is_running = queued.state == "running" and not queued.cancel.cancelled
        return is_running and isinstance(queued.task, MakePictures)

    def skip(self, task_id: str) -> bool:
        """Ends the batch that a running task makes, after its step; the task goes on with its next one.

        Of a task that is made together with others, it leaves out all pictures that are not finished. Returns False if
        nothing can be skipped (see `can_skip`).
        """
        queued = self.find(task_id)
        if queued is None or not self.can_skip(queued):
            return False
        queued.cancel.skip()
        return True

    def unfinished(self) -> list[QueuedTask]:
        """Returns the running tasks and the waiting ones, in order of arrival."""
        return [queued for queued in list(self._tasks.values()) if not queued.finished]

    def ahead_of(self, queued: QueuedTask) -> int:
        """Counts the unfinished tasks ahead of this one."""
        unfinished = self.unfinished()
        return unfinished.index(queued) if queued in unfinished else 0

    def close(self) -> None:
        """Stops the running task after its step, drops the waiting ones, and waits until pictures are saved."""
        with self._changed:
            for queued in self.unfinished():
                queued.cancel.cancel()
            self._changed.notify_all()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._writer.close()

    def _run(self, queued: QueuedTask) -> None:
        if queued.is_made:
            return
        queued.cancel.check()
        queued.begin()
        if self._session is None:
            self._session = self._make_session()
        output = queued.output or self._output
        if not isinstance(queued.task, FreeMemory):
            output.check_writable()
        others = self._joining(queued, self._session)
        if others:
            self._run_together([queued, *others], self._session)
        if not queued.is_made:
            self._run_alone(queued, self._session)

    def _run_alone(self, queued: QueuedTask, session: Session) -> None:
        """Makes a task's pictures. While the GPU computes one, the next task begins, unless that went wrong before."""
        from modules.tasks.kinds import run_in_flight, run_task  # import torch, which a front end needs not to start

        run = run_task if queued.in_batch else run_in_flight
        pictures = run(queued.task, session, queued.on_progress, queued.cancel)
        for made in islice(pictures, queued.made, None):  # without those of a batch that failed
            self._writer.save(queued, made)
            self._writer.wait(MOST_IN_FLIGHT)

    def _joining(self, queued: QueuedTask, session: Session) -> list[QueuedTask]:
        """Takes the waiting tasks to run together with this one, after waiting for them if so asked."""
        from modules.tasks.gather import common_options, joining, most_by_default, pictures_in

        if not isinstance(queued.task, MakePictures) or queued.in_batch:
            return []
        common = common_options(queued.task, session.folders)
        if common is None:
            return []
        most = self._most_together or most_by_default(session)
        if self._too_many[0] == common:
            most = min(most, self._too_many[1] // 2)
        if most < 2:
            return []

        def found() -> list[QueuedTask]:
            waiting = [each for each in self.unfinished() if each.state == "waiting" and not each.in_batch]
            waiting = [each for each in waiting if not each.cancel.cancelled]
            places = joining(queued.task, [each.task for each in waiting], most, session.folders)
            return [waiting[place] for place in places]

        def is_full() -> bool:
            return queued.cancel.cancelled or sum(pictures_in(each.task) for each in (queued, *found())) >= most

        def others_wait() -> bool:
            """Whether a task waits that does not agree, for which the GPU should not run out of work."""
            return len([each for each in self.unfinished() if each.state == "waiting"]) > len(found())

        with self._changed:
            # While the GPU finishes earlier pictures, a wait costs nothing: others may join.
            self._changed.wait_for(lambda: self._writer.has_fetched or is_full() or others_wait())
            self._changed.wait_for(is_full, self._gather_seconds)
            queued.cancel.check()
            others = found()
            for each in others:
                each.begin()
            return others

    def _run_together(self, members: list[QueuedTask], session: Session) -> None:
        """Makes the pictures of several tasks. Whatever goes wrong, each task that is not made then runs by itself."""
        from modules.tasks.gather import Ended, common_options, pictures_in, run_together

        for member in members:
            member.in_batch = True
        try:
            for member, made in run_together(members, session):
                if isinstance(made, Ended):
                    member.is_made = True
                    self._writer.end(member, made.error)
                else:
                    member.made += 1
                    self._writer.save(member, made)
        except OutOfMemoryError:
            pictures = sum(pictures_in(member.task) for member in members)
            self._too_many = common_options(members[0].task, session.folders), pictures
            log.warning("Memory does not suffice for %d requests in one batch: they run one by one.", len(members))
        except (LightDiffusionError, RuntimeError) as error:
            is_bug = not isinstance(error, LightDiffusionError)
            log.warning("%d requests in one batch failed and run one by one: %s", len(members), error, exc_info=is_bug)
        finally:
            with self._changed:
                for member in members[1:]:
                    if not member.is_made and not member.cancel.cancelled:
                        member.begin_again()

    def _make_again(self, queued: QueuedTask) -> None:
        """Lets a task run by itself after a picture of its batch proved to be unusable. Raises Cancelled."""
        with self._changed:
            queued.cancel.check()  # all are cancelled before the queue closes
            queued.begin_again()
            future = self._futures[queued.id] = self._executor.submit(self._run_again, queued)
        future.add_done_callback(partial(self._ended, queued))

    def _run_again(self, queued: QueuedTask) -> None:
        queued.in_batch = True
        self._writer.resume(queued)
        queued.make_rest()
        self._run(queued)

    def _tell_fetched(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _ended(self, queued: QueuedTask, future: Future[None]) -> None:
        self._writer.end(queued, Cancelled("Cancelled.") if future.cancelled() else future.exception())

    def _forget_oldest(self) -> None:
        finished = [key for key, queued in self._tasks.items() if queued.finished]
        for key in finished[: max(0, len(self._tasks) - MOST_KEPT)]:
            del self._tasks[key], self._futures[key]
