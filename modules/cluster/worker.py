"""A worker: a session in a process of its own, which Ray starts on any machine and starts again when it dies."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator

import ray
import torch

from modules.cluster.messages import Order, WorkerSettings
from modules.cluster.outbox import Message, Outbox
from modules.cluster.travel import check_files, unpacked
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken
from modules.generation.session import Session
from modules.tasks.kinds import run_task

GROUPS = {"work": 2, "control": 1}  # threads: one order runs while the one before it is sent, and may be cancelled


class Worker:
    """Makes the pictures of one order at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        torch.set_num_threads(settings.threads)
        self._settings = settings
        self._session: Session | None = None
        self._working = threading.Lock()
        self._tokens: dict[str, CancelToken] = {}  # of the orders that run, wait, or were cancelled before they came

    @ray.method(concurrency_group="control")
    def place(self) -> tuple[str, int]:
        """Returns this machine's name and the worker's process id, as soon as the worker is ready."""
        return socket.gethostname(), os.getpid()

    @ray.method(concurrency_group="control", max_task_retries=0)
    def cancel(self, name: str) -> None:
        """Stops an order after its step, or before it begins."""
        self._token(name).cancel()

    @ray.method(concurrency_group="work", max_task_retries=0)
    def work(self, order: Order) -> Generator[Message]:
        """Runs the order; yields its progress, its warnings and its pictures as PNGs.

        Ray does not repeat this call when the worker dies. The pool does, since it knows which pictures have come.
        Raises a LightDiffusionError with a readable message.
        """
        outbox = Outbox(watched=order.watched)
        threading.Thread(target=self._produce, args=(order, outbox), daemon=True).start()
        yield from outbox.messages()

    def _produce(self, order: Order, outbox: Outbox) -> None:
        token = self._token(order.name)
        with outbox.filling(), self._working, outbox.warnings():
            try:
                token.check()
                session = self._opened_session()
                with unpacked(order) as task:
                    check_files(order, task, session.folders, session.fingerprints)
                    outbox.put_all(run_task(task, session, outbox.tell, token), skip=order.skip)
            finally:
                del self._tokens[order.name]

    def _opened_session(self) -> Session:
        """Makes the session with the first order, which takes its warnings along."""
        if self._session is None:
            settings = self._settings
            self._session = Session(
                ModelFolders(settings.root, names_only=settings.names_only),
                device=settings.device,
                dtype=settings.dtype,
                tuning_seconds=settings.tuning_seconds,
                memory=settings.memory,
            )
        return self._session

    def _token(self, name: str) -> CancelToken:
        return self._tokens.setdefault(name, CancelToken())
