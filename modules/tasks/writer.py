"""Fetches and saves finished pictures beside the work on the next ones, and ends each task after its last picture."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from modules.core.errors import Cancelled, LightDiffusionError, MakeAgain, bug_text
from modules.gallery.output import OutputFolder
from modules.gallery.picture import EncodedPicture
from modules.tasks.queued_task import QueuedTask

if TYPE_CHECKING:
    from modules.tasks.kinds import MadePicture

log = logging.getLogger(__name__)

MOST_UNWRITTEN = 16  # pictures in memory; then the work waits for the disk
ENCODERS = min(8, os.cpu_count() or 1)  # the pictures of a batch at once: their clients wait for them


class PictureWriter:
    """Waits for pictures of the GPU and encodes them, in threads of its own. Saves pictures and ends tasks in order."""

    def __init__(
        self,
        output: OutputFolder,
        make_again: Callable[[QueuedTask], None],
        on_fetched: Callable[[], None] = lambda: None,
    ) -> None:
        """`make_again` puts a task back in line that has an unusable picture (MakeAgain): until `resume`, its pictures
        are dropped. `on_fetched` is told of each picture that has come from the GPU.
        """
        self._output = output
        self._make_again = make_again
        self._on_fetched = on_fetched
        self._fetching = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetching")
        self._encoding = ThreadPoolExecutor(max_workers=ENCODERS, thread_name_prefix="encoding")
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writing")
        self._room = threading.BoundedSemaphore(MOST_UNWRITTEN)
        self._flying: list[Future[Any]] = []  # pictures that the GPU may not have finished

    @property
    def has_fetched(self) -> bool:
        """Whether the GPU has finished all pictures."""
        return all(picture.done() for picture in self._flying)

    def wait(self, fewer_than: int) -> None:
        """Waits until the GPU has fewer pictures than that to finish."""
        flying = self._flying
        concurrent.futures.wait(flying[: max(0, len(flying) - fewer_than + 1)])

    def save(self, queued: QueuedTask, made: MadePicture) -> None:
        """Saves a picture of the task soon. If that fails, the task ends with the error and is cancelled."""
        self._room.acquire()
        fetched = self._fetching.submit(made.picture.fetched)
        self._flying = [picture for picture in (*self._flying, fetched) if not picture.done()]
        fetched.add_done_callback(lambda _: self._on_fetched())
        encoded = self._encoding.submit(lambda: fetched.result().encoded())
        self._writing.submit(self._save, queued, made, encoded).add_done_callback(partial(self._saved, queued))

    def end(self, queued: QueuedTask, error: BaseException | None) -> None:
        """Ends the task once its pictures are saved. The first end of a task counts."""
        self._writing.submit(self._end, queued, error)

    def resume(self, queued: QueuedTask) -> None:
        """Saves pictures of the task again, from now on."""
        self._writing.submit(self._resume, queued)

    def close(self) -> None:
        """Waits until everything is saved."""
        for threads in (self._fetching, self._encoding, self._writing):
            threads.shutdown(wait=True)

    def _save(self, queued: QueuedTask, made: MadePicture, encoded: Future[EncodedPicture]) -> None:
        if queued.finished or queued.is_spoiled:
            return
        try:
            picture = encoded.result()
        except MakeAgain as error:
            log.warning("A picture of a batch is made again by itself: %s", error)
            queued.is_spoiled = True
            self._make_again(queued)
        else:
            queued.add(made, (queued.output or self._output).save(picture))

    def _resume(self, queued: QueuedTask) -> None:
        queued.is_spoiled = False

    def _end(self, queued: QueuedTask, error: BaseException | None) -> None:
        if not queued.is_spoiled or isinstance(error, Cancelled):
            conclude(queued, error)

    def _saved(self, queued: QueuedTask, future: Future[None]) -> None:
        self._room.release()
        error = future.exception()
        if error is not None:
            queued.cancel.cancel()
            conclude(queued, error)


def conclude(queued: QueuedTask, error: BaseException | None) -> None:
    """Records how the task ended, unless it has ended already; also logs any error that is not meant for users."""
    if queued.finished:
        return
    if error is None:
        queued.end("done")
    elif isinstance(error, Cancelled):
        queued.end("cancelled", str(error))
    elif isinstance(error, LightDiffusionError):
        queued.end("failed", str(error), error)
    else:
        log.error("%s failed", type(queued.task).__name__, exc_info=error)
        queued.end("failed", bug_text(error), error)
