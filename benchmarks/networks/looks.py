"""Times the look at changes at a network before a picture: in its place, and each of its pieces by itself."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import synchronise
from benchmarks.side_by_side import Step
from modules.stable_fast.changes.checksums import Checksums, finish
from modules.stable_fast.changes.glance import Glance
from modules.stable_fast.changes.watch import Watch, weights_of
from modules.stable_fast.compiled_module import CompiledModule
from modules.stable_fast.pipelines.compile import CompiledPipeline
from modules.stable_fast.pipelines.conditions import why_not_this_picture


def check_row(pipeline: CompiledPipeline, step: Step, x: Tensor) -> dict[str, Any]:
    """What the first step of a picture takes more than the others: medians of wall times, taken in turn.

    `look_ms` of that passes in the look itself: `begin_ms` until all objects were compared, `end_ms` until the
    weights' checksums were there. `attach_ms` passes before, in the pipeline's own call.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for first in (True, False) * 20:
        synchronise()
        with each_timed(pipeline, "attach", times), each_timed(CompiledModule, "begin_look", times):
            began = time.perf_counter()
            with each_timed(CompiledModule, "look", times), pipeline.picture():
                step(x)
                synchronise()
                if not first:
                    began = time.perf_counter()
                    step(x)
                    synchronise()
        times["first" if first else "later"].append((time.perf_counter() - began) * 1000)
    middle = {name: statistics.median(each) for name, each in times.items()}
    row = {"first_step_ms": middle["first"], "later_step_ms": middle["later"], "attach_ms": middle["attach"]}
    row |= {"begin_ms": middle["begin_look"], "end_ms": middle["look"]}
    row |= {"look_ms": row["begin_ms"] + row["end_ms"], "ms": row["first_step_ms"] - row["later_step_ms"]}
    print(f"{'check':28} {row['ms']:9.3f} ms, {row['look_ms']:.3f} of it in the look")
    return {"label": "check", **row}


@contextmanager
def each_timed(owner: Any, name: str, times: dict[str, list[float]]) -> Iterator[None]:
    """Adds the milliseconds of each call of a method to `times[name]`."""
    own = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = own(*args, **kwargs)
        times[name].append((time.perf_counter() - began) * 1000)
        return result

    with mock.patch.object(owner, name, timed):
        yield


class Looks:
    """The pieces of a look at a network, each by itself."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.watch, self.glance = Watch(network), Glance(network)
        self.sums = Checksums(weights_of(network)[0])
        self.started = self.sums.start()

    def start(self) -> None:
        self.started = self.sums.start()

    def pieces(self) -> Mapping[str, Callable[[], object]]:
        return {
            "hooks_ms": lambda: why_not_this_picture(self.network),
            "places_ms": self.glance.same_places,
            "parts_ms": self.glance.same_parts,
            "start_ms": self.start,
            "wait_ms": lambda: finish(self.started),  # for all that `start` began, since nothing runs meanwhile
            "look_ms": self.watch.look,
            "look_without_reading_ms": lambda: self.watch.look(reads_weights=False),
        }

    def measure(self, rounds: int = 30) -> dict[str, Any]:
        """Medians of wall times and, as `cpu_...`, of the process's CPU time. All pieces are taken in turn."""
        wall: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for name, piece in self.pieces().items():
                if name != "wait_ms":
                    synchronise()
                began, used = time.perf_counter(), time.process_time()
                piece()
                wall[f"cpu_{name}"].append((time.process_time() - used) * 1000)
                wall[name].append((time.perf_counter() - began) * 1000)
        return {name: statistics.median(times) for name, times in wall.items()}


def look_row(network: nn.Module) -> dict[str, Any]:
    looks, tensors = Looks(network), weights_of(network)[0].values()
    row: dict[str, Any] = {"label": "look", "modules": len(list(network.modules())), **looks.measure()}
    row |= {"ms": row["look_ms"], "weights_mib": sum(x.nbytes for x in tensors) / 2**20}
    if torch.cuda.is_available():
        row |= {"kernels": kernels(lambda _: looks.watch.look(), torch.empty(0)), "device_ms": device_ms(looks.start)}
    for name in sorted(name for name in row if name.endswith("_ms")):
        print(f"  {name:26} {row[name]:9.3f} ms")
    print(
        f"{'look':28} {row['ms']:9.3f} ms   {row['weights_mib']:.0f} MiB, {row.get('kernels', 'no')} kernels on a GPU"
    )
    return row


def device_ms(start: Callable[[], object], times: int = 10) -> float:
    """The GPU's time for what `start` launches, back to back."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(times):
        start()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / times


def kernels(step: Callable[[Tensor], object], x: Tensor) -> int:
    """Kernels of one step on a GPU, copies and fills included."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        step(x)
        synchronise()
    return sum(event.device_type.name == "CUDA" for event in seen.events())
