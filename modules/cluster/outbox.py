"""What a worker sends back: the thread that makes pictures fills an outbox, and Ray's thread empties it."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from modules.cluster.messages import Free, Warned
from modules.core.device import fetched
from modules.generation.progress import Progress
from modules.tasks.kinds import MadePicture
from modules.tasks.queued_task import PREVIEW_SECONDS

PROGRESS_SECONDS = 0.1  # minimum time between two steps that are told
Message = Progress | MadePicture | Warned | Free
End = BaseException | None  # an error, or the end of a task that went well


class Outbox:
    """The messages of one order. Pictures are encoded by the thread that takes them out, beside the GPU's work."""

    def __init__(self, *, watched: bool) -> None:
        self._watched = watched
        self._messages: queue.SimpleQueue[Message | End] = queue.SimpleQueue()
        self._next_step = self._next_preview = 0.0  # when the next one may be told

    def messages(self) -> Iterator[Message]:
        """Yields everything in order; raises what `filling` caught."""
        while (message := self._messages.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield replace(message, picture=message.picture.encoded()) if isinstance(message, MadePicture) else message

    @contextmanager
    def filling(self) -> Generator[None]:
        """Ends the messages after the block, with its error if there was one."""
        end: End = None
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - the thread that takes the messages raises it
            end = error
        self._messages.put(end)

    def put_all(self, made: Iterator[MadePicture], *, skip: int) -> None:
        """Puts in the pictures from number `skip` on; tells that the worker is free before it puts in the last one."""
        last: MadePicture | None = None
        for picture in islice(made, skip, None):
            if last is not None:
                self._messages.put(last)
            last = picture
        self._messages.put(Free())
        if last is not None:
            self._messages.put(last)

    def tell(self, event: Progress) -> None:
        """Puts in a step, unless another one went in just before. Only some steps carry a preview's latent."""
        now = time.monotonic()
        if not self._watched or (now < self._next_step and 0 < event.step < event.steps):
            return
        self._next_step = now + PROGRESS_SECONDS
        latent = None
        if event.denoised is not None and now >= self._next_preview:
            self._next_preview = now + PREVIEW_SECONDS
            latent = fetched(event.denoised[:1])
        self._messages.put(replace(event, denoised=latent))

    @contextmanager
    def warnings(self) -> Generator[None]:
        """Puts in what the program logs for the user meanwhile."""
        handler = WarningSender(self._messages)
        logger = logging.getLogger("modules")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class WarningSender(logging.Handler):
    """Sends warnings of the log as messages."""

    def __init__(self, messages: queue.SimpleQueue[Message | End]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.put(Warned(text=record.getMessage()))
