"""Runs each kind of task in a session and yields its pictures; saving them is up to the caller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch

from modules.core.device import made_current
from modules.core.progress import CancelToken
from modules.gallery.picture import EncodedPicture, Picture, PictureInFlight
from modules.generation.checks.request import check_request
from modules.generation.options import GenerationOptions
from modules.generation.progress import OnProgress, Progress
from modules.generation.session import Session
from modules.generation.text_to_image import device_errors_for_people, generate, generate_soon
from modules.tasks.axes import grid_cells
from modules.tasks.compare import Comparison, compare
from modules.tasks.grid import check_sheet, paste_grid
from modules.tasks.picture_work import draw_hint, enlarge_all
from modules.tasks.task import Compare, DrawHint, Enlarge, FreeMemory, MakeGrid, MakePictures, Task


@dataclass(frozen=True, kw_only=True)
class MadePicture:
    """A finished picture of a task. `note` reports what Stable-Fast has done, `comparison` what Compare measured."""

    picture: Picture | PictureInFlight | EncodedPicture
    note: str = ""
    comparison: Comparison | None = None


@singledispatch
def run_task(task: Task, session: Session, on_progress: OnProgress, cancel: CancelToken) -> Iterator[MadePicture]:
    """Runs any task and yields each picture as soon as it is finished.

    Raises a LightDiffusionError if something fails; Cancelled once `cancel` is set.
    """
    raise TypeError(f"{type(task).__name__} is not a kind of task")


@run_task.register
def run_make_pictures(
    task: MakePictures, session: Session, on_progress: OnProgress, cancel: CancelToken
) -> Iterator[MadePicture]:
    for picture in generate(task.options, session, on_progress=on_progress, cancel=cancel):
        yield MadePicture(picture=picture, note=stable_fast_note(task.options, session))


def run_in_flight(task: Task, session: Session, on_progress: OnProgress, cancel: CancelToken) -> Iterator[MadePicture]:
    """Works like `run_task`, but does not wait for the pictures of a request (see `generate_soon`)."""
    if not isinstance(task, MakePictures):
        yield from run_task(task, session, on_progress, cancel)
        return
    for picture in generate_soon(task.options, session, on_progress=on_progress, cancel=cancel):
        yield MadePicture(picture=picture, note=stable_fast_note(task.options, session))


@run_task.register
def run_compare(task: Compare, session: Session, on_progress: OnProgress, cancel: CancelToken) -> Iterator[MadePicture]:
    """Yields two pictures; the one without Stable-Fast comes first."""
    comparison = compare(task.options, session, on_progress=told_as("comparing", on_progress), cancel=cancel)
    eager, fast = comparison.eager, comparison.accelerated
    note = stable_fast_note(replace(task.options, stable_fast=fast.asked), session)
    yield MadePicture(picture=eager.picture, note=note, comparison=comparison)
    yield MadePicture(picture=fast.picture, note=note, comparison=comparison)


@run_task.register
def run_make_grid(
    task: MakeGrid, session: Session, on_progress: OnProgress, cancel: CancelToken
) -> Iterator[MadePicture]:
    """Yields one picture: the sheet, with the metadata of its first cell."""
    for cell in grid_cells(task.options, task.across, task.down):
        check_request(cell, session.folders)  # reports errors of later cells before the first picture
    seeded = task.options.resolved(session.model(task.options).spec.native_size)
    cells = grid_cells(seeded, task.across, task.down)
    check_sheet(cells, task.across, task.down)
    pictures: list[Picture] = []
    for number, cell in enumerate(cells, start=1):
        part = told_as(f"picture {number} of {len(cells)}", on_progress)
        pictures += generate(cell, session, on_progress=part, cancel=cancel)
    sheet = paste_grid([picture.image for picture in pictures], task.across, task.down)
    yield MadePicture(picture=replace(pictures[0], image=sheet), note=stable_fast_note(cells[-1], session))


@run_task.register
def run_enlarge(task: Enlarge, session: Session, on_progress: OnProgress, cancel: CancelToken) -> Iterator[MadePicture]:
    with made_current(session.device), device_errors_for_people(session):
        for picture in enlarge_all(task, session, on_progress, cancel):
            yield MadePicture(picture=picture)


@run_task.register
def run_draw_hint(
    task: DrawHint, session: Session, on_progress: OnProgress, cancel: CancelToken
) -> Iterator[MadePicture]:
    yield MadePicture(picture=draw_hint(task))


@run_task.register
def run_free_memory(
    task: FreeMemory, session: Session, on_progress: OnProgress, cancel: CancelToken
) -> Iterator[MadePicture]:
    session.free()
    yield from ()


def told_as(part: str, on_progress: OnProgress) -> OnProgress:
    """Passes progress on, labelled as this part of the task."""

    def told(event: Progress) -> None:
        on_progress(replace(event, part=part))

    return told


def stable_fast_note(options: GenerationOptions, session: Session) -> str:
    """Returns the status line about Stable-Fast after a run; empty if it was not requested."""
    report = session.stable_fast_report
    return report.status_line() if report is not None and options.stable_fast != "off" else ""
