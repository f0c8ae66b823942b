"""Tests each kind of task: its results, its progress reports, and the equivalence of its pickled copy."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from modules.core.errors import Cancelled, LightDiffusionError
from modules.core.progress import CancelToken
from modules.generation.options import GenerationOptions, HiresOptions
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.tasks.axes import read_axis
from modules.tasks.kinds import MadePicture, run_task
from modules.tasks.task import Compare, FreeMemory, MakeGrid, MakePictures, Task
from tests import tiny_project

SMALL = GenerationOptions(prompt="a cat", width=64, height=64, steps=1, seed=1, cfg=1.0)
GRID = MakeGrid(options=SMALL, across=read_axis("seed", "1, 2"))
# Level "graph" traces nothing, and on a CPU it captures nothing either.
COMPARE = Compare(options=replace(SMALL, stable_fast="graph"))
TASKS: tuple[Task, ...] = (MakePictures(options=SMALL), COMPARE, GRID, FreeMemory())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path_factory.mktemp("kinds")))


def made(task: Task, session: Session, told: list[Progress] | None = None) -> list[MadePicture]:
    events = [] if told is None else told
    return list(run_task(task, session, events.append, CancelToken()))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_a_pickled_task_gives_the_same_pictures(task: Task, session: Session) -> None:
    own, sent = made(task, session), made(pickle.loads(pickle.dumps(task)), session)
    assert [each.picture.image.tobytes() for each in own] == [each.picture.image.tobytes() for each in sent]
    assert [each.picture.parameters for each in own] == [each.picture.parameters for each in sent]
    assert len(own) == {MakePictures: 1, Compare: 2, MakeGrid: 1, FreeMemory: 0}[type(task)]


def test_a_comparison_brings_both_pictures_and_what_was_measured(session: Session) -> None:
    told: list[Progress] = []
    eager, fast = made(COMPARE, session, told)
    assert eager.comparison is fast.comparison is not None
    assert (eager.comparison.eager.picture, eager.comparison.accelerated.picture) == (eager.picture, fast.picture)
    assert "Stable-Fast" in eager.note and {event.part for event in told} == {"comparing"}


def test_a_grid_is_one_sheet_with_the_text_of_its_first_cell(session: Session) -> None:
    told: list[Progress] = []
    [sheet] = made(GRID, session, told)
    [cell] = made(MakePictures(options=SMALL), session)
    assert sheet.picture.parameters == cell.picture.parameters and sheet.picture.image.width > 2 * 64
    assert list(dict.fromkeys(event.part for event in told)) == ["picture 1 of 2", "picture 2 of 2"]


def test_memory_is_freed_and_the_same_picture_comes_again(session: Session) -> None:
    [before] = made(MakePictures(options=SMALL), session)
    model = session.model(SMALL)
    assert made(FreeMemory(), session) == [] and session.model(SMALL) is not model
    [after] = made(MakePictures(options=SMALL), session)
    assert after.picture.image.tobytes() == before.picture.image.tobytes()


def test_cancelling_stops_any_kind(session: Session) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(run_task(GRID, session, lambda event: None, cancel))


@pytest.mark.parametrize(
    ("option", "values", "words"),
    [
        ("checkpoint", "tiny, nothing", "nothing"),
        ("vae", "nothing", "nothing"),
        ("replace", "cat, <lora:nothing:1>", "nothing"),
        ("sampler", "euler, eulr", "eulr"),
        ("height", "64, 8192", "megapixels"),
    ],
)
def test_a_grid_that_cannot_be_finished_is_not_begun(session: Session, option: str, values: str, words: str) -> None:
    across = read_axis("width", "64, 8192, 8192") if option == "height" else read_axis("steps", "1")
    told: list[Progress] = []
    with pytest.raises(LightDiffusionError, match=words):
        made(MakeGrid(options=SMALL, across=across, down=read_axis(option, values)), session, told)
    assert told == []


def test_a_cell_of_a_grid_is_one_picture(session: Session) -> None:
    """Keeping both passes of HiresFix would make two pictures per cell."""
    options = replace(SMALL, hires=HiresOptions(steps=1, keep_first_pass=True))
    [sheet] = made(replace(GRID, options=options), session)
    width, height = sheet.picture.image.size
    assert 2 * 128 < width < 300 and 128 < height < 180
