"""Watches our own functions and threads during a load, and tells what the GPU's gaps in it were spent on."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

SPANS = (  # phase, module, attribute
    ("gather", "modules.tasks.queue", "TaskQueue._joining"),
    ("folder", "modules.gallery.output", "OutputFolder.check_writable"),
    ("prepare", "modules.generation.together", "jobs_with_room"),
    ("prepare", "modules.generation.text_to_image", "jobs_with_room"),
    ("text", "modules.generation.job", "encode_prompts"),
    ("sample", "modules.generation.text_to_image", "sample_pass"),
    ("runner", "modules.generation.passes.sampling_pass", "prepare_runner"),
    ("noise", "modules.generation.passes.sampling_pass", "ImageNoise"),
    ("unet", "modules.stable_fast.unet_runner", "StableFastRunner.step"),
    ("tell", "modules.generation.passes.batch", "Batch.sampled"),
    ("preview", "modules.tasks.queued_task", "encode_preview"),
    ("vae", "modules.generation.job", "Job.decode_soon"),
    ("vae", "modules.generation.job", "Job.decode"),
    ("bytes", "modules.images.in_flight", "PixelsInFlight.__init__"),
    ("note", "modules.tasks.gather", "stable_fast_note"),
    ("hand over", "modules.tasks.writer", "PictureWriter.save"),
    ("fetch", "modules.images.in_flight", "PixelsInFlight.wait"),
    ("png", "modules.gallery.picture", "Picture.encoded"),
    ("write", "modules.gallery.output", "OutputFolder.save"),
)
GAP_MS = 0.3
GENERATION = "generation"

Span = tuple[str, str, int, int, int]  # thread, phase, begin and end in ns since the epoch, CPU ns
spans: list[Span] = []


def spanned(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        began, cpu = time.time_ns(), time.thread_time_ns()
        try:
            return function(*args, **kwargs)
        finally:
            spent = time.thread_time_ns() - cpu
            spans.append((threading.current_thread().name, phase, began, time.time_ns(), spent))

    return call


def watch_phases() -> None:
    """Wraps the functions of all phases. Other modules look them up where they are wrapped."""
    for phase, module, path in SPANS:
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        if not hasattr(owner, name):
            print(f"phase {phase} is left out: {module} has no {path}")
        else:
            setattr(owner, name, spanned(phase, getattr(owner, name)))


class Lines(threading.Thread):
    """Notes every millisecond in which lines of ours the generation thread is, and how late the GIL let it do so."""

    def __init__(self) -> None:
        super().__init__(name="lines", daemon=True)
        self.seen: list[tuple[int, str]] = []
        self.late_ms: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        ident = next(t.ident for t in threading.enumerate() if t.name.startswith(GENERATION))
        while not self.over.is_set():
            planned = time.perf_counter() + 0.001
            time.sleep(0.001)
            self.late_ms.append((time.perf_counter() - planned) * 1000)
            frame, lines = sys._current_frames().get(ident or 0), []  # pyright: ignore[reportPrivateUsage]
            while frame is not None and len(lines) < 4:
                name = frame.f_code.co_filename
                if "site-packages" not in name and ("/modules/" in name or not lines):
                    lines.append(f"{Path(name).name}:{frame.f_lineno} {frame.f_code.co_name}")
                frame = frame.f_back
            self.seen.append((time.time_ns(), " < ".join(lines)))


def cpu_by_thread() -> dict[str, float]:
    """Returns the CPU seconds of each kind of thread so far."""
    names = {str(t.native_id): t.name.rsplit("_", 1)[0] for t in threading.enumerate()}
    seconds: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        kind = names.get(task.name, "not Python's")
        kind = "clients" if kind.startswith("ThreadPoolExecutor") else kind
        try:
            seconds[kind] += int((task / "schedstat").read_text().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
    return seconds


def merged(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    whole: list[tuple[int, int]] = []
    for begin, end in sorted(intervals):
        if whole and begin <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((begin, end))
    return whole


def phase_at(moment: int, own: list[Span]) -> str:
    """Returns the innermost phase of the generation thread at this moment."""
    around = [span for span in own if span[2] <= moment < span[3]]
    return min(around, key=lambda span: span[3] - span[2])[1] if around else "between phases"


def timeline(recorded: Any, lines: Lines) -> dict[str, Any]:
    """Tells the GPU's time by phase, and its gaps with what the generation thread did in them."""
    events = recorded.profiler.kineto_results.events()
    on_gpu = [event for event in events if event.device_type().name == "CUDA" and event.duration_ns() > 0]
    calls = {event.correlation_id(): event for event in events if event.device_type().name == "CPU"}
    own = [span for span in spans if span[0].startswith(GENERATION)]
    by_phase: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in on_gpu:
        call = calls.get(event.correlation_id())
        phase = phase_at(call.start_ns(), own) if call is not None else "unknown"
        by_phase[phase][0] += event.duration_ns() / 1e6
        by_phase[phase][1] += 1
    busy = merged([(event.start_ns(), event.start_ns() + event.duration_ns()) for event in on_gpu])
    if not busy:
        return {}
    wall, total = (busy[-1][1] - busy[0][0]) / 1e6, sum(end - begin for begin, end in busy) / 1e6
    gaps = [(a[1], b[0]) for a, b in zip(busy, busy[1:], strict=False) if b[0] - a[1] > GAP_MS * 1e6]
    where: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    at: Counter[str] = Counter()
    for begin, end in gaps:
        slices = [begin + (end - begin) * part // 20 for part in range(20)]
        phases = Counter(phase_at(moment, own) for moment in slices)
        kind = " + ".join(f"{name} {share * 5}%" for name, share in phases.most_common(3))
        where[phases.most_common(1)[0][0]][0] += (end - begin) / 1e6
        where[phases.most_common(1)[0][0]][1] += 1
        at.update(line for moment, line in lines.seen if begin <= moment < end)
        if (end - begin) > 2e6:
            print(f"   gap at {(begin - busy[0][0]) / 1e6:8.1f} ms: {(end - begin) / 1e6:6.2f} ms, {kind}")
    long = sum(end - begin for begin, end in gaps) / 1e6
    print(f" GPU busy {total:.1f} of {wall:.1f} ms ({total / wall:.0%}); idle {long:.1f} ms in {len(gaps)} gaps over "
          f"{GAP_MS} ms, {wall - total - long:.1f} ms in shorter ones")  # fmt: skip
    print(" kernels by phase (ms, number):", {k: (round(v[0], 1), int(v[1])) for k, v in by_phase.items()})
    print(" gaps by main phase (ms, number):", {k: (round(v[0], 1), int(v[1])) for k, v in where.items()})
    waited: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in calls.values():
        waited[event.name()][0] += event.duration_ns() / 1e6
        waited[event.name()][1] += 1
    top = sorted(waited.items(), key=lambda item: -item[1][0])[:8]
    print(" calls of CUDA (ms, number):", {k: (round(v[0], 1), int(v[1])) for k, v in top})
    for line, count in at.most_common(25):
        print(f"   in gaps {count:4} x {line}")
    return {"wall_ms": wall, "busy_ms": total, "by_phase": dict(by_phase), "gaps_by_phase": dict(where), "at": at}


def phases(pictures: int) -> dict[str, Any]:
    """Prints wall and CPU time of each phase for a picture."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for thread, phase, begin, end, cpu in spans:
        row = sums[f"{thread.rsplit('_', 1)[0]}: {phase}"]
        row[0], row[1], row[2] = row[0] + (end - begin) / 1e6, row[1] + cpu / 1e6, row[2] + 1
    for name, (wall, cpu, calls) in sorted(sums.items()):
        print(f"   {name:28} {calls:5} calls, a picture: {wall / pictures:7.2f} ms, of it CPU {cpu / pictures:7.2f}")
    return dict(sums)


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Counts the places that wait for the GPU without need, by torch's own warnings."""
    places: Counter[str] = Counter()

    def shown(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            stack = [f for f in traceback.extract_stack() if "/modules/" in f.filename and "torch" not in f.filename]
            places[" < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in stack[:-4:-1])] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = shown
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
