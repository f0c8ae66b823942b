"""Tests the queue: one task at a time, in order; tasks can be cancelled at any time and keep their errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.core.progress import CancelToken
from modules.gallery.output import OutputFolder
from modules.gallery.picture import Picture
from modules.generation.options import GenerationOptions
from modules.tasks.kinds import MadePicture, run_task
from modules.tasks.queue import MOST_WAITING, TaskQueue
from modules.tasks.task import FreeMemory, MakePictures


@dataclass(frozen=True)
class Call:
    """A kind of task for these tests that calls a function with the session."""

    work: Callable[[Any], object]


@dataclass(frozen=True)
class Forever:
    """A kind of task that only ends when it is cancelled."""


@run_task.register
def call(task: Call, session: Any, on_progress: Any, cancel: CancelToken) -> Iterator[MadePicture]:
    task.work(session)
    yield from ()


@run_task.register
def until_cancelled(task: Forever, session: Any, on_progress: Any, cancel: CancelToken) -> Iterator[MadePicture]:
    while True:
        cancel.check()
        threading.Event().wait(0.005)
        yield from ()


@dataclass(frozen=True)
class TwoPictures:
    """A kind of task that makes two pictures of one request."""


@run_task.register
def two_pictures(task: TwoPictures, session: Any, on_progress: Any, cancel: CancelToken) -> Iterator[MadePicture]:
    for seed, colour in ((7, "red"), (8, "blue")):
        image = Image.new("RGB", (8, 8), colour)
        picture = Picture(image=image, seed=seed, request_seed=7, parameters="a\nSteps: 1")
        yield MadePicture(picture=picture, note=f"made {seed}")


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "output")


@pytest.fixture
def queue(output: OutputFolder) -> Iterator[Any]:
    queue = TaskQueue(lambda: "session", output)  # type: ignore[arg-type, return-value]
    yield queue
    queue.close()


def test_tasks_run_in_order_on_one_thread_with_one_session(queue: Any) -> None:
    seen: list[tuple[str, str, Any]] = []

    def work(label: str) -> Call:
        return Call(lambda session: seen.append((label, threading.current_thread().name, session)))

    tasks = [queue.submit(work(label)) for label in "abc"]
    assert all(queued.wait(10) for queued in tasks)
    assert [label for label, _, _ in seen] == ["a", "b", "c"]
    assert len({thread for _, thread, _ in seen}) == 1
    assert {session for _, _, session in seen} == {"session"}
    assert [queued.state for queued in tasks] == ["done"] * 3


def test_each_picture_is_saved_and_told(queue: Any, output: OutputFolder) -> None:
    queued = queue.submit(TwoPictures())
    assert queued.wait(10) and (queued.state, queued.seed, queued.note) == ("done", 7, "made 8")
    colours = [Image.open(path).getpixel((0, 0)) for path in queued.pictures]
    assert colours == [(255, 0, 0), (0, 0, 255)]
    assert all(path.is_relative_to(output.folder) for path in queued.pictures) and output.last_seed() == 7


def test_an_unwritable_folder_is_reported_before_the_work_and_does_not_stop_freeing(
    queue: Any, output: OutputFolder
) -> None:
    output.folder.parent.mkdir(exist_ok=True)
    output.folder.write_bytes(b"a file where the folder should be")
    freed: list[bool] = []
    queue._session = type("Session", (), {"free": lambda self: freed.append(True)})()
    refused, freeing = queue.submit(Call(lambda session: pytest.fail("nothing may run"))), queue.submit(FreeMemory())
    assert refused.wait(10) and refused.state == "failed" and "--output-dir" in refused.error
    assert freeing.wait(10) and freeing.state == "done" and freed == [True]


def test_a_waiting_task_knows_its_place_and_can_be_cancelled(queue: Any) -> None:
    running, waiting = queue.submit(Forever()), queue.submit(Forever())
    assert queue.ahead_of(waiting) == 1
    waiting.cancel.cancel()
    running.cancel.cancel()
    assert running.wait(10) and waiting.wait(10)
    assert (running.state, waiting.state) == ("cancelled", "cancelled")
    assert waiting.started is None
    assert queue.unfinished() == []


def test_a_waiting_task_leaves_the_queue_at_once(queue: Any) -> None:
    running, waiting = queue.submit(Forever()), queue.submit(Forever())
    assert queue.cancel(waiting.id)
    assert waiting.wait(10) and waiting.state == "cancelled"
    assert queue.unfinished() == [running] and queue.find(running.id) is running
    assert queue.cancel(running.id) and running.wait(10)
    assert not queue.cancel("no such")


def test_only_a_running_request_for_pictures_can_skip(queue: Any) -> None:
    running, pictures = queue.submit(Forever()), queue.submit(MakePictures(options=GenerationOptions(prompt="a cat")))
    assert not queue.skip(running.id) and not queue.skip(pictures.id) and not queue.skip("no such")
    queue.cancel(pictures.id)
    running.cancel.cancel()
    assert running.wait(10) and running.cancel.take_skip() is False
    pictures.cancel = CancelToken()
    pictures.state = "running"
    assert queue.skip(pictures.id) and pictures.cancel.take_skip()


def test_too_many_waiting_are_refused(queue: Any) -> None:
    tasks = [queue.submit(Forever()) for _ in range(MOST_WAITING)]
    with pytest.raises(OptionsError, match="waiting already"):
        queue.submit(FreeMemory())
    assert all(queue.cancel(queued.id) for queued in reversed(tasks))


def test_errors_are_reported_and_the_next_task_runs(queue: Any) -> None:
    def refuse(session: Any) -> None:
        raise OptionsError("Too small: take more.")

    def break_down(session: Any) -> None:
        raise ZeroDivisionError("oops")

    refused, broken = queue.submit(Call(refuse)), queue.submit(Call(break_down))
    fine, unknown = queue.submit(Call(lambda session: None)), queue.submit("no task")
    assert unknown.wait(10)
    assert (refused.state, refused.error) == ("failed", "Too small: take more.")
    assert broken.state == "failed" and "ZeroDivisionError: oops" in broken.error
    assert fine.state == "done"
    assert unknown.state == "failed" and "str is not a kind of task" in unknown.error


def test_a_task_may_have_a_folder_of_its_own(queue: Any, output: OutputFolder, tmp_path: Path) -> None:
    other = OutputFolder(tmp_path / "other")
    queued = queue.submit(TwoPictures(), other)
    assert queued.wait(30) and queued.state == "done"
    assert all(path.is_relative_to(other.folder) for path in queued.pictures) and len(queued.pictures) == 2
    assert not output.folder.exists()


def test_a_task_keeps_the_error_that_it_failed_with(queue: Any) -> None:
    error = OptionsError("No.")

    def fail(session: Any) -> None:
        raise error

    queued = queue.submit(Call(fail))
    assert queued.wait(30) and (queued.state, queued.error, queued.failure) == ("failed", "No.", error)
