"""Several ways to compute the same, warmed up one after the other, then timed in turn, round after round."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import synchronise

Step = Callable[[Tensor], Tensor]


@dataclass
class Subject:
    """One way to run the step, its warm-up, its times and how exact it is."""

    name: str
    make: Callable[[], Step]
    step: Step | None = None
    row: dict[str, Any] = field(default_factory=dict)
    device_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)


@contextmanager
def at_its_best(name: str) -> Iterator[None]:
    """cuDNN times its algorithms for diffusers' convolutions, since ours come from measured choices too."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, name.startswith("diffusers")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def warm_up(subject: Subject, x: Tensor, reference: Tensor | None) -> None:
    """First call (compilation included), memory, and how far it is from the reference if there is one.

    Ctrl-C (or `timeout --signal=INT`) leaves out a subject that takes too long, and the others are still measured.
    """
    if x.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        with at_its_best(subject.name):
            step = subject.make()
            out = step(x)
            synchronise()
            subject.row["first_call_seconds"] = time.perf_counter() - began
            for _ in range(3):
                out = step(x)
            synchronise()
    except torch.AcceleratorError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a result, not the end of the other subjects
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
    """One round: `steps` evaluations on one fresh input. Wall time off the GPU; on it, the GPU's and the host's."""
    step = subject.step
    if step is None:
        return
    x = torch.randn_like(like)
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
) -> list[dict[str, Any]]:
    """A row for each subject; those named in `unjudged` have other weights, so the reference says nothing of them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored in the background
    deadline = time.monotonic() + budget
    try:
        for subject in subjects:
            if time.monotonic() > deadline:
                subject.row["error"] = "not run: the time budget was spent"
                continue
            warm_up(subject, x, None if subject.name in unjudged else reference)
        for subject in [subject for _ in range(rounds) for subject in subjects]:
            with at_its_best(subject.name):
                time_once(subject, x, steps)
    except torch.AcceleratorError as error:  # nothing runs after a fault; what was timed before it counts
        subject.row["error"] = f"the GPU faulted in this subject: {error}"[:500]
        for other in subjects:
            if other.step is None:
                other.row.setdefault("error", "not run: the GPU had faulted")
    return [row_of(subject) for subject in subjects]


def row_of(subject: Subject) -> dict[str, Any]:
    row: dict[str, Any] = {"label": subject.name, **subject.row}
    if subject.device_ms:
        times = subject.device_ms
        row |= {"ms": statistics.median(times), "fastest_ms": min(times), "slowest_ms": max(times)}
    if subject.host_ms:
        row["host_ms"] = statistics.median(subject.host_ms)
    print(f"{subject.name:28} {row.get('ms', float('nan')):9.3f} ms   {row.get('error', '')}")
    return row
