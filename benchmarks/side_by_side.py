"""Compares several ways to compute the same result: warms each up, then times them in turn, round after round."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import synchronise

Step = Callable[[Tensor], Tensor]
Rows = list[dict[str, Any]]


@dataclass
class Subject:
    """One way to run the step, with its warm-up, times and accuracy.

    `picture`: what a round of it happens in; its first step is not timed.
    """

    name: str
    make: Callable[[], Step]
    picture: Callable[[], AbstractContextManager[object]] | None = None
    step: Step | None = None
    row: dict[str, Any] = field(default_factory=dict)
    device_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)


@contextmanager
def at_its_best(name: str) -> Iterator[None]:
    """Lets cuDNN time its algorithms for diffusers' convolutions, since ours are chosen by measurement too."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, name.startswith("diffusers")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def warm_up(subject: Subject, x: Tensor, reference: Tensor | None) -> None:
    """Measures the first call (including compilation), memory, and the distance from the reference if there is one.

    Ctrl-C (or `timeout --signal=INT`) skips a subject that takes too long; the others are still measured.
    """
    if x.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        with at_its_best(subject.name), (subject.picture or nullcontext)():
            step = subject.make()
            out = step(x)
            synchronise()
            subject.row["first_call_seconds"] = time.perf_counter() - began
            for _ in range(3):
                out = step(x)
            synchronise()
    except torch.AcceleratorError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - recorded as a result; other subjects still run
        subject.row["error"] = f"{type(error).__name__} after {time.perf_counter() - began:.0f} s: {error}"[:500]
        print(f"{subject.name}: {subject.row['error']}", flush=True)
        return
    subject.step = step
    if reference is not None:
        subject.row["relative_error"] = ((out.float() - reference).norm() / reference.norm()).item()
    if x.is_cuda:
        subject.row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(f"{subject.name}: first call {subject.row['first_call_seconds']:.2f} s", flush=True)


def time_once(subject: Subject, like: Tensor, steps: int) -> None:
    """Times a round of `steps` evaluations on a fresh input: wall time on a CPU, GPU and host time on a GPU."""
    if subject.step is None:
        return
    x = torch.randn_like(like) if like.is_floating_point() else torch.randint_like(like, 1000)
    if subject.picture is None:
        _time_steps(subject, subject.step, x, steps)
        return
    with subject.picture():
        subject.step(x)
        _time_steps(subject, subject.step, x, steps)


def _time_steps(subject: Subject, step: Step, x: Tensor, steps: int) -> None:
    synchronise()
    if not x.is_cuda:
        began = time.perf_counter()
        for _ in range(steps):
            step(x)
        subject.device_ms.append((time.perf_counter() - began) * 1000 / steps)
        return
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    began = time.perf_counter()
    for _ in range(steps):
        step(x)
    subject.host_ms.append((time.perf_counter() - began) * 1000 / steps)
    end.record()
    end.synchronize()
    subject.device_ms.append(start.elapsed_time(end) / steps)


def measure_all(
    subjects: Sequence[Subject],
    x: Tensor,
    reference: Tensor | None,
    *,
    rounds: int,
    steps: int,
    budget: float,
    unjudged: frozenset[str] = frozenset(),
    keep: Callable[[Rows], object] = lambda rows: None,
) -> Rows:
    """Returns a row per subject. Subjects in `unjudged` have other weights and are not compared with the reference.

    Every second round is taken backwards, so that no subject always follows the same other one. `keep` is given all
    rows whenever there is something new in them. The first time of each subject is taken right after its warm-up.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for background jobs
    deadline = time.monotonic() + budget
    try:
        for subject in subjects:
            if time.monotonic() > deadline:
                subject.row["error"] = "not run: the time budget was spent"
                continue
            warm_up(subject, x, None if subject.name in unjudged else reference)
            with at_its_best(subject.name):
                time_once(subject, x, steps)
            keep([row_of(each) for each in subjects])
        for number in range(1, rounds):
            for subject in subjects if number % 2 else reversed(subjects):
                with at_its_best(subject.name):
                    time_once(subject, x, steps)
            keep([row_of(each) for each in subjects])
    except torch.AcceleratorError as error:  # nothing runs after a fault; earlier times stay valid
        subject.row["error"] = f"the GPU faulted in this subject: {error}"[:500]
        for other in subjects:
            if other.step is None:
                other.row.setdefault("error", "not run: the GPU had faulted")
    rows = [row_of(subject) for subject in subjects]
    for row in rows:
        print(f"{row['label']:28} {row.get('ms', float('nan')):9.3f} ms   {row.get('error', '')}")
    return rows


def row_of(subject: Subject) -> dict[str, Any]:
    row: dict[str, Any] = {"label": subject.name, **subject.row}
    if subject.device_ms:
        times = subject.device_ms
        row |= {"ms": statistics.median(times), "fastest_ms": min(times), "slowest_ms": max(times)}
    if subject.host_ms:
        row["host_ms"] = statistics.median(subject.host_ms)
    return row
