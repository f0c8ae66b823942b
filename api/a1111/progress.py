"""A1111's progress of the API's current task, from loading on."""

from __future__ import annotations

from typing import Any

from api.desk import Desk
from api.pictures import in_base64
from modules.tasks.queued_task import Pace, QueuedTask
from modules.tasks.task import MakePictures

LOADING = 0.01  # A1111's first value; loading has no steps to count
ENCODED = 0.05  # once the models are loaded and the prompts are read
# The shares of a batch at which a phase begins and ends, without and with a second pass.
ONE_PASS = {"sampling": (0.0, 0.95), "decoding": (0.95, 1.0)}
TWO_PASSES = {"sampling": (0.0, 0.35), "hires": (0.35, 0.95), "decoding": (0.95, 1.0)}
NO_JOB = {"job": "", "job_count": 0, "job_no": 0, "sampling_step": 0, "sampling_steps": 0, "job_timestamp": "0"}
STATE = {**NO_JOB, "skipped": False, "interrupted": False, "stopping_generation": False}
IDLE = {"progress": 0.0, "eta_relative": 0.0, "state": STATE, "current_image": None, "textinfo": None}


def progress(desk: Desk, *, with_picture: bool) -> dict[str, Any]:
    """Answers progress 0 to 1, the seconds left, and a small preview unless the client does not want one."""
    queued = desk.current
    if queued is None:
        return IDLE
    share = share_of(queued)
    preview = queued.preview if with_picture else b""
    return {
        "progress": desk.furthest(queued, share),
        "eta_relative": queued.seconds * (1 - share) / share if queued.pace is not None else 0.0,
        "state": {**STATE, **job_of(queued)},
        "current_image": in_base64(preview) if preview else None,
        "textinfo": words_of(desk, queued),
    }


def share_of(queued: QueuedTask) -> float:
    """Returns the finished share of a task. It goes back only if the task has to be made again."""
    if queued.state == "waiting":
        return 0.0
    return LOADING if queued.pace is None else ENCODED + (1 - ENCODED) * share_of_steps(queued, queued.pace)


def share_of_steps(queued: QueuedTask, pace: Pace) -> float:
    has_two = isinstance(queued.task, MakePictures) and queued.task.options.hires is not None
    begin, end = (TWO_PASSES if has_two else ONE_PASS).get(pace.phase, (0.0, 1.0))
    within = begin + (end - begin) * pace.step / max(pace.steps, 1)
    return min(1.0, (pace.batch - 1 + within) / max(pace.batches, 1))


def job_of(queued: QueuedTask) -> dict[str, Any]:
    """Returns A1111's state of a task: its batch and its step."""
    stopping, pace = queued.cancel.cancelled, queued.pace
    job = {"job": queued.id, "job_count": 1, "interrupted": stopping, "stopping_generation": stopping}
    if pace is None:
        return job
    steps = {"sampling_step": pace.step, "sampling_steps": pace.steps}
    return {**job, "job_count": pace.batches, "job_no": pace.batch - 1, **steps}


def words_of(desk: Desk, queued: QueuedTask) -> str | None:
    """Says why there are no steps yet."""
    if queued.state == "waiting":
        return f"Waiting for {desk.queue.ahead_of(queued)} others"
    return "Loading" if queued.pace is None else None
