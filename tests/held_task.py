"""A task that holds the queue until a test lets it go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from modules.tasks.kinds import MadePicture, run_task


@dataclass(frozen=True)
class HoldTheQueue:
    """A kind of task that makes no picture and runs until its event is set."""

    until: threading.Event


@run_task.register
def hold(task: HoldTheQueue, *context: object) -> Iterator[MadePicture]:
    task.until.wait(60)
    yield from ()
