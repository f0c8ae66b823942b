"""Decides which waiting tasks are made together, in one batch, and makes their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions, random_seed
from modules.generation.prompts import take_loras_out
from modules.generation.session import Session
from modules.generation.together import Ended, Request, generate_together, number_together
from modules.generation.wording.spelled_out import with_styles
from modules.sampling.names import resolve_sampler
from modules.tasks.kinds import MadePicture, stable_fast_note
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import MakePictures, Task
from modules.text.wildcards import varies

MOST_TOGETHER = 8  # on an NVIDIA GPU; other devices make one picture after the other as fast
ONE_BY_ONE = "dpm_adaptive"  # each picture has its own steps, so a batch of N does N times the work for each


def most_by_default(session: Session) -> int:
    """Returns how many pictures to make together on the session's device."""
    return MOST_TOGETHER if session.device.type == "cuda" else 1


def joining(first: Task, waiting: Sequence[Task], most: int, folders: ModelFolders) -> list[int]:
    """Returns the places in `waiting` of the tasks to make together with `first`, in order of arrival.

    They agree with it (see `common_options`). All together have at most `most` pictures and are a usual number of
    batches (see `number_together`).
    """
    common = common_options(first, folders)
    if common is None or not isinstance(first, MakePictures):
        return []
    places: list[int] = []
    numbers = [first.options.number]
    for place, task in enumerate(waiting):
        if isinstance(task, MakePictures) and common_options(task, folders) == common:
            places.append(place)
            numbers.append(task.options.number)
    return places[: number_together(numbers, most // common.batch) - 1]


def common_options(task: Task, folders: ModelFolders) -> GenerationOptions | None:
    """Returns what tasks that are made together must have in common; None for a task that is made by itself.

    These are the options without prompts, seed and number. LoRAs named in the prompt or by a style count as chosen.
    """
    if not isinstance(task, MakePictures):
        return None
    try:
        options = with_styles(task.options, folders)
        _, named = take_loras_out(options.prompt)
    except LightDiffusionError:  # told when its turn comes
        return None
    if is_for_itself(options):
        return None
    loras = tuple(replace(lora, text_strength=lora.clip_strength) for lora in (*options.loras, *named))
    return replace(options, prompt="", negative_prompt="", seed=0, number=1, loras=loras)


def pictures_in(task: Task) -> int:
    """Returns how many rows of a batch the task takes."""
    return task.options.images if isinstance(task, MakePictures) else 1


def is_for_itself(options: GenerationOptions) -> bool:
    """Returns whether a request (without styles) is never made together with others: it has to run as if alone."""
    hires = options.hires
    if options.only is not None:  # repeats a picture bit for bit, for which the batch must be the same
        return True
    if hires is not None and hires.keep_first_pass and options.images > 1:  # a batch changes the pictures' order
        return True
    if options.tiled is not None:  # fills the batches itself
        return True
    if varies(options.prompt) or varies(options.negative_prompt):  # each picture may name other LoRAs
        return True
    names = (options.sampler, hires.sampler if hires else None)
    try:
        return any(name is not None and resolve_sampler(name).sampler == ONE_BY_ONE for name in names)
    except OptionsError:  # told when its turn comes
        return True


def run_together(members: Sequence[QueuedTask], session: Session) -> Iterator[tuple[QueuedTask, MadePicture | Ended]]:
    """Makes the pictures of these tasks (see `generate_together`), which are MakePictures that agree.

    Random seeds are drawn now and kept, so that a task that has to run again makes the same pictures.
    """
    requests: list[Request] = []
    for member in members:
        options = with_seed(member.task)
        member.task = MakePictures(options=options)
        requests.append(Request(options=options, on_progress=member.on_progress, cancel=member.cancel))
    for number, made in generate_together(requests, session):
        if isinstance(made, Ended):
            yield members[number], made
        else:
            note = stable_fast_note(requests[number].options, session)
            yield members[number], MadePicture(picture=made, note=note)


def with_seed(task: Task) -> GenerationOptions:
    """Returns the request with a definite seed. Raises TypeError for a task that is made by itself."""
    if not isinstance(task, MakePictures):
        raise TypeError(f"{type(task).__name__} is not made together with others")
    return replace(task.options, seed=random_seed() if task.options.seed is None else task.options.seed)
