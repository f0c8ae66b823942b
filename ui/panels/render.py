"""Renders messages, progress, preview and memory as HTML."""

from __future__ import annotations

import base64
from html import escape

from modules.tasks.queued_task import Pace, QueuedTask
from ui.panels.page_words import in_page_words

SLOW_RATE = 0.1  # steps per second
LONG_WAIT = 30  # seconds without a first step
PHASES = {"sampling": "Sampling", "hires": "HiresFix", "decoding": "Decoding"}


def error_box(text: str) -> str:
    return f'<div class="ld-message ld-error" role="alert">{escape(in_page_words(text))}</div>' if text else ""


def note_box(text: str) -> str:
    return f'<div class="ld-message ld-note" role="status">{escape(in_page_words(text))}</div>' if text else ""


def status_line(text: str) -> str:
    return f'<p class="ld-status">{escape(in_page_words(text))}</p>' if text else ""


def memory_line(text: str) -> str:
    return f'<p class="ld-memory">{escape(text)}</p>'


def deletion(name: str) -> str:
    """Asks before a picture is deleted, by name, since of several pictures none is marked as the chosen one."""
    return f'<p class="ld-words">Delete {escape(name)} permanently?</p>'


def stage(queued: QueuedTask, ahead: int, *, accelerated: bool = False) -> str:
    """Renders a line of text and the progress bar."""
    if queued.state == "waiting":
        before = "1 request is" if ahead == 1 else f"{ahead} requests are"
        return bar(None, f"Waiting in the queue: {before} before yours." if ahead else "Starting…")
    if queued.state == "running":
        return running(queued, accelerated=accelerated)
    return bar(1.0, finished_words(queued), quiet=True)


def running(queued: QueuedTask, *, accelerated: bool) -> str:
    if queued.pace is None:
        what = "loading the model" + (" and warming up Stable-Fast" if accelerated else "")
        return bar(None, f"Preparing: {what} · {time_words(queued.seconds)}")
    words = [pace_words(queued.pace), *step_words(queued, queued.pace), *skipped_words(queued)]
    return bar(queued.pace.share, " · ".join(words))


def step_words(queued: QueuedTask, pace: Pace) -> list[str]:
    """Says that Cancel waits for the step in the works, once it was clicked and before that for slow steps."""
    if queued.cancel.cancelled:
        return ["Cancelling after this step"]
    slow = queued.seconds > LONG_WAIT and not pace.step if pace.rate is None else pace.rate < SLOW_RATE
    return ["Cancel waits for a whole step"] if slow else []


def skipped_words(queued: QueuedTask) -> list[str]:
    """Says how many batches were skipped, if any."""
    skipped = queued.cancel.skipped
    return [f"Skipped {skipped} batch{'' if skipped == 1 else 'es'}"] if skipped else []


def pace_words(pace: Pace) -> str:
    """Formats the pace as `Sampling step 7 of 20 · 3.4 it/s · about 4 s left`."""
    part = [f"{pace.part[0].upper()}{pace.part[1:]}"] if pace.part else []
    words = [f"{PHASES.get(pace.phase, pace.phase)} step {pace.step} of {pace.steps}"]
    if pace.phase == "enlarging":
        words = [f"Enlarging picture {pace.batch} of {pace.batches}"]
        return " · ".join([*words, f"part {pace.step} of {pace.steps}"] if pace.steps > 1 else words)
    if pace.phase == "decoding":
        words = [f"Decoding picture {min(pace.step + 1, pace.steps)} of {pace.steps}"]
    if pace.batches > 1:
        words.append(f"batch {pace.batch} of {pace.batches}")
    if pace.rate is not None:
        words.append(f"{pace.rate:.1f} it/s" if pace.rate >= 1 else f"{1 / pace.rate:.1f} s/it")
    if pace.seconds_left is not None and pace.phase != "decoding":
        words.append(f"about {time_words(pace.seconds_left)} left")
    return " · ".join([*part, *words])


def finished_words(queued: QueuedTask) -> str:
    count = len(queued.pictures)
    made = f"{count} picture{'' if count == 1 else 's'} in {queued.seconds:.1f} s"
    seed = f" · seed {queued.seed}" if queued.seed is not None else ""
    if queued.state == "done":
        done = f"Done: {made}{seed}" if count else f"Done in {queued.seconds:.1f} s"
        return " · ".join([done, *skipped_words(queued)])
    if queued.state == "cancelled":
        return f"Cancelled; kept {made}{seed}" if count else "Cancelled; no picture was finished."
    return f"Stopped by an error; kept {made}{seed}" if count else "Stopped by an error."


def time_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def preview(queued: QueuedTask) -> str:
    """Renders the live preview of a running request; it hides the pictures of an earlier one."""
    if queued.finished or not queued.preview:
        return ""
    data = base64.b64encode(queued.preview).decode("ascii")
    kind = "ld-preview" if queued.pictures else "ld-preview ld-first"
    return f'<img class="{kind}" alt="Live preview of the picture" src="data:image/png;base64,{data}">'


def bar(share: float | None, words: str, *, quiet: bool = False) -> str:
    """Renders a progress bar. A `share` of None means unknown progress; `quiet` shows only the words."""
    percent = 0 if share is None else round(100 * share)
    now = "" if share is None else f'aria-valuenow="{percent}"'
    kind = "ld-fill ld-unknown" if share is None else "ld-fill"
    progress = (
        f'<div class="ld-track" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" {now}>'
        f'<div class="{kind}" style="width:{100 if share is None else percent}%"></div></div>'
    )
    return (
        f'<div class="ld-stage"><p class="ld-words" role="status">{escape(words)}</p>{"" if quiet else progress}</div>'
    )


READY = bar(None, "Ready.", quiet=True)
REFUSED = bar(None, "Not started.", quiet=True)
