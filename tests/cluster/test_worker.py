"""A worker without Ray around it: it survives errors, and a cancelled order ends within one step."""

from __future__ import annotations

import threading
import time

import pytest

from modules.cluster.messages import WorkerSettings
from modules.cluster.travel import packed
from modules.cluster.worker import Worker
from modules.core.errors import Cancelled, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.progress import Progress
from modules.tasks.kinds import MadePicture
from modules.tasks.task import MakePictures

SMALL = GenerationOptions(prompt="a cat", width=64, height=64, steps=1, seed=7)
LONG = GenerationOptions(prompt="a cat", width=64, height=64, steps=150, seed=7)


@pytest.fixture(scope="module")
def worker(settings: WorkerSettings) -> Worker:
    return Worker(settings)


def test_an_error_leaves_the_worker_whole(worker: Worker, settings: WorkerSettings) -> None:
    folders = ModelFolders(settings.root)
    wrong = packed(MakePictures(options=GenerationOptions(prompt="a cat", sampler="nix")), folders, None)
    with pytest.raises(OptionsError, match='"nix"'):
        list(worker.work(wrong))
    messages = list(worker.work(packed(MakePictures(options=SMALL), folders, None)))
    assert sum(isinstance(message, MadePicture) for message in messages) == 1


def test_cancel_ends_an_order_within_one_step(worker: Worker, settings: WorkerSettings) -> None:
    order = packed(MakePictures(options=LONG), ModelFolders(settings.root), None, watched=True)
    after: list[int] = []
    cancelled = False
    with pytest.raises(Cancelled):
        for message in worker.work(order):
            if isinstance(message, Progress) and message.step >= 1:
                if not cancelled:
                    worker.cancel(order.name)
                    cancelled = True
                after.append(message.step)
    assert after[-1] < 150, "it stopped on the way"


def test_cancel_may_come_before_the_order(worker: Worker, settings: WorkerSettings) -> None:
    order = packed(MakePictures(options=SMALL), ModelFolders(settings.root), None, watched=True)
    worker.cancel(order.name)
    with pytest.raises(Cancelled):
        list(worker.work(order))


def test_two_orders_take_turns(worker: Worker, settings: WorkerSettings) -> None:
    """The second one may come while the first one's last picture is on its way."""
    folders = ModelFolders(settings.root)
    spans: list[tuple[float, float]] = []

    def run() -> None:
        steps = [
            time.monotonic()
            for message in worker.work(packed(MakePictures(options=SMALL), folders, None, watched=True))
            if isinstance(message, Progress)
        ]
        spans.append((steps[0], steps[-1]))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = sorted(spans)
    assert first[1] <= second[0], "they did not use the session at once"
