"""The desk: where a request's pictures go, and what of this computer it hides."""

from __future__ import annotations

from pathlib import Path

from modules.core.errors import ModelFileError
from modules.gallery.output import OutputFolder
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory
from tests.api.asgi import desk_without_engine
from tests.ui.conftest import run_apart


def test_a_tray_is_deleted_after_the_answer(tmp_path: Path) -> None:
    desk = desk_without_engine(tmp_path)
    with desk.tray(keep=False) as tray:
        tray.check_writable()
        assert tray.folder.is_dir() and not tray.folder.is_relative_to(tmp_path)
    assert not tray.folder.exists()
    with desk.tray(keep=True) as kept:
        assert kept is desk.output


def test_folders_of_this_computer_are_left_out_of_sentences(tmp_path: Path) -> None:
    desk = desk_without_engine(tmp_path)
    (tmp_path / "models" / "loras").mkdir(parents=True)
    try:
        desk.folders.find("loras", "zork")
    except ModelFileError as error:
        assert str(tmp_path) in str(error) and str(tmp_path) not in desk.without_paths(str(error))
    assert desk.without_paths(f"{OutputFolder(tmp_path / 'output').folder}/x.png") == "output/x.png"


def test_the_current_task_is_one_that_runs(tmp_path: Path) -> None:
    desk = desk_without_engine(tmp_path)
    tasks = [QueuedTask(task=FreeMemory()) for _ in range(3)]
    waiting, joined, last = tasks
    desk.queue.submit = lambda task, output: next(each for each in tasks if each.task is task)  # type: ignore[method-assign]
    for each in tasks:
        run_apart(desk.submit(each.task, desk.output))
    joined.begin()
    assert desk.unfinished() == [joined, waiting, last] and desk.current is joined
    joined.end("done")
    assert desk.current is waiting


def test_what_a_client_is_told_of_a_task_never_goes_back(tmp_path: Path) -> None:
    """After a worker has died, its task begins anew in another one."""
    desk, first, second = desk_without_engine(tmp_path), QueuedTask(task=FreeMemory()), QueuedTask(task=FreeMemory())
    assert [desk.furthest(first, share) for share in (0.05, 0.6, 0.05, 0.7)] == [0.05, 0.6, 0.6, 0.7]
    assert desk.furthest(second, 0.01) == 0.01
