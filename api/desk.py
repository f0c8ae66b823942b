"""The desk: takes the API's tasks to the queue, waits for them, and knows the API's own defaults."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modules.core.paths import KINDS, ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.checks.request import check_request
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import MakePictures, Task

POLL_SECONDS = 0.02
PATIENT_POLLS = 25  # between two looks whether the client is still there

IsGone = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a request of the API takes when it names nothing else. The page has its own."""

    checkpoint: str | None = None
    vae: str | None = None
    clip_skip: int = 1


class Desk:
    """One desk serves all clients of the API."""

    def __init__(self, queue: TaskQueue, folders: ModelFolders, output: OutputFolder) -> None:
        self.queue = queue
        self.folders = folders
        self.output = output
        self.defaults = Defaults()
        self._tasks: list[QueuedTask] = []
        self._told = "", 0.0  # the task whose share was told last, and that share

    @contextmanager
    def tray(self, *, keep: bool) -> Generator[OutputFolder, None, None]:
        """Yields the folder for a request's pictures: the page's, or one that is deleted after the answer."""
        if keep:
            yield self.output
            return
        with tempfile.TemporaryDirectory(prefix="lightdiffusion-api-") as folder:
            yield OutputFolder(Path(folder))

    async def run(self, task: Task, tray: OutputFolder, is_gone: IsGone | None = None) -> QueuedTask:
        """Submits a task and waits for it; see `submit` and `finish`."""
        return await self.finish(await self.submit(task, tray), is_gone)

    async def submit(self, task: Task, tray: OutputFolder) -> QueuedTask:
        """Takes a task to the queue. Raises OptionsError or ModelFileError for a mistake in it."""
        if isinstance(task, MakePictures):  # a mistake is told at once, not when it is this task's turn
            await asyncio.to_thread(check_request, task.options, self.folders)
        queued = self.queue.submit(task, tray)
        self._tasks = [*self.unfinished(), queued]
        return queued

    async def finish(self, queued: QueuedTask, is_gone: IsGone | None = None) -> QueuedTask:
        """Waits for a task, without holding a thread. Raises the task's error if it failed.

        A cancelled task is returned with the pictures there are. `is_gone` tells whether the client has hung up, which
        cancels the task.
        """
        try:
            await self._wait(queued, is_gone)
        finally:  # the server stops, or the client has gone
            if not queued.finished:
                self.queue.cancel(queued.id)
                await asyncio.to_thread(queued.wait)  # it may still write into the tray
        if queued.failure is not None:
            raise queued.failure
        return queued

    async def _wait(self, queued: QueuedTask, is_gone: IsGone | None) -> None:
        polls = 0
        while not queued.finished:
            await asyncio.sleep(POLL_SECONDS)
            polls += 1
            if is_gone is not None and polls % PATIENT_POLLS == 0 and await is_gone():
                return

    def unfinished(self) -> list[QueuedTask]:
        """Returns the API's running tasks, then its waiting ones. A task that joined a batch overtook some of them."""
        return sorted((each for each in self._tasks if not each.finished), key=lambda each: each.state == "waiting")

    @property
    def current(self) -> QueuedTask | None:
        """The API's running task, or the next one to run."""
        return next(iter(self.unfinished()), None)

    def furthest(self, queued: QueuedTask, share: float) -> float:
        """Returns the largest share of this task that was told so far: a task that is made again begins anew."""
        task, most = self._told
        self._told = queued.id, max(share, most if task == queued.id else 0.0)
        return self._told[1]

    def stop(self) -> None:
        """Stops the current task after its step; the pictures that are finished stay."""
        if self.current is not None:
            self.queue.cancel(self.current.id)

    def skip(self) -> bool:
        """Ends the batch that the running task makes. Returns False if that task has none that can be left out."""
        running = [each for each in self.unfinished() if each.state == "running"]
        return all(self.queue.skip(each.id) for each in running[:1])

    def without_paths(self, sentence: str) -> str:
        """Returns the sentence with the names of this computer's folders left out."""
        folders = {folder for kind in KINDS for folder in self.folders.folders(kind)}
        folders |= {self.folders.root, self.output.folder, Path(tempfile.gettempdir())}
        written = {text: folder.name for folder in folders for text in (str(folder), str(folder.resolve()))}
        for text in sorted(written, key=len, reverse=True):  # inner folders before outer ones
            sentence = sentence.replace(text, written[text])
        return sentence
