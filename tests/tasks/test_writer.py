"""Pictures are saved in order beside the work; what goes wrong reaches the task; nothing is lost at the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modules.core.errors import Cancelled, MakeAgain, OutputError
from modules.gallery.output import OutputFolder
from modules.gallery.picture import Picture, PictureInFlight
from modules.tasks.kinds import MadePicture
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory
from modules.tasks.writer import MOST_UNWRITTEN, PictureWriter


def made(seed: int) -> MadePicture:
    image = Image.new("RGB", (8, 8))
    return MadePicture(picture=Picture(image=image, seed=seed, request_seed=7, parameters="a\nSteps: 1"))


class SlowFolder(OutputFolder):
    """Saves nothing before it is told to; `full` pictures are saved, then the disk is full."""

    def __init__(self, folder: Path, full: int = 1000) -> None:
        super().__init__(folder)
        self.go, self.full, self.saved = threading.Event(), full, list[int]()

    def save(self, picture: Picture) -> Path:
        self.go.wait(30)
        if len(self.saved) == self.full:
            raise OutputError("The disk is full: free some space.")
        self.saved.append(picture.seed)
        return self.folder / f"{picture.seed}.png"


def refuse(queued: QueuedTask) -> None:
    pytest.fail("nothing is to be made again")


def new_task() -> QueuedTask:
    return QueuedTask(task=FreeMemory())


def test_a_task_ends_after_its_last_picture_is_saved(tmp_path: Path) -> None:
    folder, queued = SlowFolder(tmp_path), new_task()
    writer = PictureWriter(folder, refuse)
    for seed in range(3):
        writer.save(queued, made(seed))
    writer.end(queued, None)
    assert not queued.wait(0.05) and queued.pictures == []
    folder.go.set()
    writer.close()
    assert queued.state == "done" and [path.stem for path in queued.pictures] == ["0", "1", "2"] and queued.seed == 7


def test_a_full_disk_ends_the_task_and_stops_its_work(tmp_path: Path) -> None:
    folder, queued, other = SlowFolder(tmp_path, full=1), new_task(), new_task()
    writer = PictureWriter(folder, refuse)
    for seed in range(3):
        writer.save(queued, made(seed))
    writer.end(queued, None)
    writer.end(other, None)
    folder.go.set()
    writer.close()
    assert queued.state == "failed" and "disk is full" in queued.error and queued.cancel.cancelled
    assert folder.saved == [0] and len(queued.pictures) == 1
    assert other.state == "done" and not other.cancel.cancelled


def test_the_work_waits_for_a_slow_disk(tmp_path: Path) -> None:
    folder, queued = SlowFolder(tmp_path), new_task()
    writer = PictureWriter(folder, refuse)

    def work() -> None:
        for seed in range(MOST_UNWRITTEN + 2):
            writer.save(queued, made(seed))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(0.2)
    assert worker.is_alive()
    folder.go.set()
    worker.join(30)
    writer.close()
    assert folder.saved == list(range(MOST_UNWRITTEN + 2))


def test_the_first_end_counts_and_a_bug_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queued: Any = new_task()
    writer = PictureWriter(SlowFolder(tmp_path), refuse)
    writer.end(queued, ZeroDivisionError("oops"))
    writer.end(queued, None)
    writer.close()
    assert queued.state == "failed" and "ZeroDivisionError: oops" in queued.error
    assert "FreeMemory failed" in caplog.text


def in_flight(seed: int, arrived: threading.Event, *, usable: bool = True) -> MadePicture:
    def fetched() -> Picture:
        arrived.wait(30)
        if not usable:
            raise MakeAgain("The picture contains NaN.")
        return picture

    picture = made(seed).picture
    assert isinstance(picture, Picture)
    return MadePicture(picture=PictureInFlight(fetched=fetched, seed=seed, request_seed=7))


def test_the_work_goes_on_while_pictures_come_from_the_gpu(tmp_path: Path) -> None:
    folder, queued, arrived, told = SlowFolder(tmp_path), new_task(), threading.Event(), list[bool]()
    writer = PictureWriter(folder, refuse, lambda: told.append(True))
    assert writer.has_fetched
    for seed in range(3):
        writer.save(queued, in_flight(seed, arrived))
    assert not writer.has_fetched and not told
    folder.go.set()
    arrived.set()
    writer.close()
    assert writer.has_fetched and len(told) == 3 and folder.saved == [0, 1, 2]


def test_after_an_unusable_picture_its_task_is_made_again_and_no_other(tmp_path: Path) -> None:
    """What its batch made after that picture is dropped, and so is the end of the task; it can still be cancelled."""
    folder, queued, other, again, now = SlowFolder(tmp_path), new_task(), new_task(), list[QueuedTask](), set_event()
    writer = PictureWriter(folder, again.append)
    folder.go.set()
    for seed in range(4):
        writer.save(queued, in_flight(seed, now, usable=seed != 1))
        writer.save(other, in_flight(10 + seed, now))
    writer.end(queued, None)
    writer.end(other, None)
    assert other.wait(30) and other.state == "done" and len(other.pictures) == 4
    assert again == [queued] and not queued.finished and [path.stem for path in queued.pictures] == ["0"]
    queued.make_rest()
    writer.resume(queued)
    for seed in range(queued.made, 4):
        writer.save(queued, made(seed))
    writer.end(queued, None)
    assert queued.wait(30) and [path.stem for path in queued.pictures] == ["0", "1", "2", "3"]
    cancelled = new_task()
    writer.save(cancelled, in_flight(0, now, usable=False))
    writer.end(cancelled, Cancelled("Cancelled."))
    writer.close()
    assert cancelled.state == "cancelled"


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event
