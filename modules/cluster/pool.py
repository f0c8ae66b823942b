"""The pool of workers: runs any task on one of them, and runs it again on another one when the worker dies."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from modules.cluster.dispatcher import CHECK_SECONDS, Dispatcher, Seat, Ticket
from modules.cluster.messages import Free, Order, Warned, WorkerSettings
from modules.cluster.outbox import Message
from modules.cluster.travel import packed
from modules.cluster.worker import GROUPS, Worker
from modules.core.errors import DeviceError
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken
from modules.generation.metadata.named_files import Fingerprints
from modules.generation.progress import OnProgress
from modules.tasks.kinds import MadePicture
from modules.tasks.task import FreeMemory, Task

log = logging.getLogger(__name__)

MOST_TRIES = 5  # for one task, whose worker died each time
OUT_OF_MEMORY = "the system may have ended them, because memory ran out; try a smaller size or batch, or fewer workers."


class WorkerDied(Exception):
    """The worker of an order has died, or its GPU has a fault; another one must do the rest."""


class WorkerPool:
    """Workers in a cluster that Ray has started or found. `run` may be called from many threads."""

    def __init__(
        self, settings: WorkerSettings, folders: ModelFolders, *, workers: int, gpus: bool, same_machine: bool
    ) -> None:
        """Asks Ray for the workers and returns at once. Each begins as soon as there is room for it."""
        self.folders = folders
        self.size = workers
        self._known = None if same_machine else Fingerprints()
        needs: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if gpus else {"num_cpus": 1}
        remote: Any = ray.remote  # its types know no options
        actor = remote(max_restarts=-1, max_task_retries=-1, concurrency_groups=GROUPS, **needs)(Worker)
        self.seats = [Seat(worker=actor.remote(settings)) for _ in range(workers)]
        self._dispatcher = Dispatcher(self.seats)
        self._told: set[str] = set()
        self._closed = threading.Event()
        self._openers = ThreadPoolExecutor(workers, thread_name_prefix="worker start")
        for seat in self.seats:
            self._openers.submit(self._open, seat)

    def run(self, task: Task, on_progress: OnProgress | None, cancel: CancelToken) -> Iterator[MadePicture]:
        """Runs a task like `run_task`, on the worker that suits it best. The pictures come as PNGs.

        `on_progress` gets some of the steps, and few of them with a latent for a preview. None saves sending them.
        Raises a LightDiffusionError if something fails; Cancelled once `cancel` is set; DeviceError if several workers
        have died at this task.
        """
        order = packed(task, self.folders, self._known, watched=on_progress is not None)
        reason = ""
        for attempt in range(MOST_TRIES):
            ticket = self._dispatcher.acquire(order.checkpoint, cancel, urgent=attempt > 0)
            try:
                for made in self._stream(ticket, order, on_progress, cancel):
                    order = replace(order, skip=order.skip + 1)
                    yield made
                return
            except WorkerDied as death:
                cancel.check()
                reason = str(death)
            finally:
                self._dispatcher.release(ticket)
        raise DeviceError(f"{MOST_TRIES} workers died while they made this: {reason}")

    def free(self) -> None:
        """Frees the models of all workers, each after its task, and waits for that."""
        order = Order(name=secrets.token_hex(6), task=FreeMemory())
        for stream in [seat.worker.work.options(num_returns="streaming").remote(order) for seat in self.up]:
            with suppress(RayError):  # a worker that has died holds nothing any more
                for message in stream:
                    ray.get(message)

    @property
    def up(self) -> list[Seat]:
        """The seats whose workers are ready."""
        return [seat for seat in self.seats if seat.up]

    def close(self) -> None:
        """Ends the workers."""
        self._closed.set()
        self._openers.shutdown()
        for seat in self.seats:
            ray.kill(seat.worker)

    def _stream(
        self, ticket: Ticket, order: Order, on_progress: OnProgress | None, cancel: CancelToken
    ) -> Iterator[MadePicture]:
        """Yields an order's pictures from one worker. The worker's seat is free before the last one is here."""
        assert ticket.seat is not None
        with closing(self._messages(ticket.seat, order, cancel)) as messages:
            for message in messages:
                if isinstance(message, MadePicture):
                    yield message
                elif isinstance(message, Warned):
                    self._warn(message.text)
                elif isinstance(message, Free):
                    self._dispatcher.release(ticket)
                elif on_progress is not None:
                    on_progress(message)

    def _messages(self, seat: Seat, order: Order, cancel: CancelToken) -> Generator[Message]:
        """Yields what the worker sends. Raises its error, or WorkerDied. An abandoned order is cancelled."""
        stream = seat.worker.work.options(num_returns="streaming").remote(order)
        told = False
        try:
            while True:
                ready, _ = ray.wait([stream], timeout=CHECK_SECONDS)
                if cancel.cancelled and not told:
                    told = True
                    seat.worker.cancel.remote(order.name)
                if ready:
                    yield cast(Message, ray.get(next(stream)))
        except StopIteration:
            return
        except GeneratorExit:
            seat.worker.cancel.remote(order.name)
            raise
        except RayTaskError as error:
            if not isinstance(error.cause, DeviceError):
                raise error.cause from error
            ray.kill(seat.worker, no_restart=False)  # this process cannot use its GPU any more
            self._revive(seat)
            raise WorkerDied(str(error.cause)) from error
        except RayError as error:
            self._revive(seat)
            raise WorkerDied(OUT_OF_MEMORY) from error

    def _revive(self, seat: Seat) -> None:
        """Opens the seat again when Ray has started the worker again."""
        if self._dispatcher.shut(seat):
            log.warning("A worker has died; it is started again, and its picture is made again.")
            self._openers.submit(self._open, seat)

    def _open(self, seat: Seat) -> None:
        """Waits until the worker is ready, and opens its seat."""
        place = seat.worker.place.remote()
        while not self._closed.is_set():
            ready, _ = ray.wait([place], timeout=CHECK_SECONDS)
            if ready:
                break
        else:
            return
        try:
            ray.get(place)
        except RayError as error:
            self._dispatcher.lose(seat, start_failure(error))
        else:
            self._dispatcher.open(seat)

    def _warn(self, text: str) -> None:
        """Tells a worker's warning, once for all workers."""
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


def start_failure(error: RayError) -> str:
    """Returns the reason why a worker could not start, in one sentence."""
    last = (str(error).strip().splitlines() or [""])[-1].strip().rstrip(".")
    return (
        f"it could not start ({last}). Each machine needs this program in the same folder, and Ray's token "
        "(docs/cluster.md)."
    )
