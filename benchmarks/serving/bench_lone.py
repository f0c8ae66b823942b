"""Times requests one after the other, each with its own prompt: from prompt to pixels, without files and previews.

    python -m benchmarks.serving.bench_lone                                   # SD1.5 at 512, fp16, level full
    python -m benchmarks.serving.bench_lone --device cpu --tiny --size 64 --pictures 2 --rounds 2   # to try it

Ways: `waited` asks for the next picture when the pixels of one have come, as a single user does; `in-flight` asks one
picture earlier, as the queue does when requests wait. Loads: 4 steps without guidance; 20 steps with guidance, in full
and with 1 to 3 steps skipped after each full one. All take turns. Then 4 steps run under the profiler (timeline.py).
Weights are random. Every row is written as soon as it is known.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_generate import project
from benchmarks.common import synchronise, write_result
from benchmarks.serving.timeline import GENERATION, Lines, phases, spans, timeline, waits, watch_phases
from modules.generation import text_to_image
from modules.generation.options import GenerationOptions
from modules.generation.session import Session

LOADS: dict[str, dict[str, Any]] = {
    "4 steps": {"steps": 4, "cfg": 1.0},
    **{f"20 steps, skip {skip}": {"steps": 20, "cfg": 7.0, "stable_fast_skip": skip} for skip in range(4)},
}
WAYS = ("waited", "in-flight")


class Lone:
    """Makes pictures of one load in one way, with a new prompt each."""

    def __init__(self, session: Session, arguments: argparse.Namespace) -> None:
        self.session = session
        self.arguments = arguments
        self._numbers = itertools.count()

    def options(self, load: str) -> GenerationOptions:
        number, arguments = next(self._numbers), self.arguments
        return GenerationOptions(
            prompt=f"a lighthouse on a cliff, number {number}", width=arguments.size, height=arguments.size,
            seed=number, sampler="euler", scheduler="normal", stable_fast=arguments.stable_fast, **LOADS[load],
        )  # fmt: skip

    def run(self, load: str, way: str, pictures: int) -> float:
        """Returns the milliseconds a picture took."""
        synchronise()
        began, before = time.perf_counter(), None
        for _ in range(pictures):
            (made,) = text_to_image.generate_soon(self.options(load), self.session, in_flight=way == "in-flight")
            if before is not None:
                before.fetched()
            before = made
        assert before is not None
        before.fetched()
        return (time.perf_counter() - began) * 1000 / pictures


def measured(lone: Lone, arguments: argparse.Namespace) -> list[dict[str, object]]:
    pairs = [(load, way) for load in LOADS for way in WAYS]
    first = {load: lone.run(load, "waited", 1) for load in LOADS}
    for load, way in pairs:
        lone.run(load, way, 2)
    times: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    for _ in range(arguments.rounds):
        for pair in pairs:
            times[pair].append(lone.run(*pair, arguments.pictures))
    rows: list[dict[str, object]] = []
    for (load, way), found in times.items():
        ms = statistics.median(found)
        print(f"{load}, {way:10} {ms:7.2f} ms a picture, {1000 / ms:6.2f} pictures/s", flush=True)
        row: dict[str, object] = {"label": f"{load}, {way}", "ms": ms, "fastest_ms": min(found)}
        row |= {"slowest_ms": max(found), "first_ms": first[load], "pictures_per_second": 1000 / ms}
        rows.append(row)
    report = lone.session.stable_fast_report
    print(" ", report.status_line() if report else "no report", flush=True)
    for name, shape in report.shapes.items() if report else ():
        print(f"  step {name}: {shape.steps.median_ms()} ms", flush=True)
    return rows


def profiled(lone: Lone, load: str) -> dict[str, Any]:
    """Shows what the host does for a picture, and where the GPU idles. Runs in a thread that `Lines` finds."""
    found: dict[str, Any] = {}
    for way in WAYS:
        print(f"== {load}, {way}", flush=True)
        spans.clear()
        lone.run(load, way, 12)
        found[f"{way} phases"] = phases(12)
        if torch.cuda.is_available():
            spans.clear()
            lines = Lines()
            with profile(activities=[ProfilerActivity.CUDA]) as recorded:
                lines.start()
                lone.run(load, way, 8)
                lines.over.set()
                lines.join()
                synchronise()
            found[f"{way} timeline"] = timeline(recorded, lines)
    if torch.cuda.is_available():
        with waits() as places:
            lone.run(load, "in-flight", 4)
        for place, count in places.most_common(12):
            print(f"   waits {count:4} x {place}")
    return found


def in_thread(work: Callable[[], Any]) -> Any:
    """Runs `work` in a thread with the name of the queue's."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), name=f"{GENERATION}_0")
    thread.start()
    thread.join()
    return results[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small random networks, to try the script")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=8, help="of each load and way in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stable-fast", default="full")
    arguments = parser.parse_args()
    watch_phases()
    with tempfile.TemporaryDirectory() as folder:
        lone = Lone(Session(project(Path(folder), tiny=arguments.tiny), device=arguments.device), arguments)
        rows = in_thread(lambda: measured(lone, arguments))
        write_result(f"lone-{'tiny' if arguments.tiny else 'sd15'}-{arguments.size}", rows, arguments=vars(arguments))
        found = in_thread(lambda: profiled(lone, "4 steps"))
    if os.environ.get("OUT"):
        Path(os.environ["OUT"], "profile-lone.json").write_text(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
