"""Measures pictures per second from a queue that never empties, by MLPerf's rules for SDXL as far as weights allow.

    python -m benchmarks.serving.bench_throughput                               # SDXL, 1024 px, 20 steps Euler, CFG 8
    python -m benchmarks.serving.bench_throughput --precision fp8
    python -m benchmarks.serving.bench_throughput --family sd15 --size 512 --cfg 7.5
    python -m benchmarks.serving.bench_throughput --family sd15 --size 512 --steps 4 --cfg 1 --waiting 1   # few steps
    python -m benchmarks.serving.bench_throughput --device cpu --tiny --size 128 --steps 2 --batches 1 --pictures 4

MLPerf's offline scenario: many prompts wait, with one negative prompt for all, 20 steps Euler, guidance 8, 1024 px.
Weights are random at the real shapes, so that nothing can be said about the pictures, and the prompts are not COCO's.
A picture counts when its PNG is on disk. Each size of batch first runs unmeasured, for compilation and capture.
`--waiting 1` sends the next prompt when the picture before is there: then the pictures per second are one client's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import write_result
from benchmarks.gpu.memory import FAMILIES, MIB, shrunk, write_project
from benchmarks.serving.bench_server import RETRY_SECONDS, gpu_share
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.stable_fast.precision import PRECISIONS
from modules.tasks.queue import MOST_WAITING, QueueFull, TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import MakePictures

NEGATIVE = "normal quality, low quality, worst quality, low res, blurry, nsfw, nude"  # MLPerf's
SUBJECTS = ("a man on a surfboard", "two dogs", "a red bus", "a bowl of fruit", "a kitchen", "a train", "a giraffe")
PLACES = ("in the rain", "near a lake", "in front of a house", "at night", "on a wooden table", "under a bridge")


def prompt(number: int) -> str:
    """Returns a caption of about the length of COCO's; no two are equal."""
    return f"{SUBJECTS[number % 7]} {PLACES[number % 6]}, seen from the side, number {number}"


class Offline:
    """A queue that is filled with requests for one picture each."""

    def __init__(self, session: Session, output: Path, arguments: argparse.Namespace, together: int) -> None:
        self.queue = TaskQueue(lambda: session, OutputFolder(output), most_together=together)
        self.arguments = arguments
        self.numbers = 0

    def options(self) -> GenerationOptions:
        self.numbers += 1
        asked = self.arguments
        return GenerationOptions(
            prompt=prompt(self.numbers), negative_prompt=NEGATIVE, seed=self.numbers, width=asked.size,
            height=asked.size, steps=asked.steps, cfg=asked.cfg, sampler="euler", scheduler="normal",
            stable_fast=asked.level, stable_fast_precision=asked.precision,
        )  # fmt: skip

    def make(self, pictures: int) -> tuple[float, list[float]]:
        """Returns the seconds for so many pictures, and those from one picture to the next."""
        tasks: list[QueuedTask] = []
        began = time.monotonic()
        for _ in range(pictures):
            task = MakePictures(options=self.options())
            while sum(not each.finished for each in tasks) >= self.arguments.waiting:
                tasks[-1].wait(RETRY_SECONDS) if self.arguments.waiting == 1 else time.sleep(RETRY_SECONDS)
            tasks.append(self._submitted(task))
        for each in tasks:
            each.wait()
            if each.state != "done":
                raise RuntimeError(each.error)
        ends = sorted(each.ended or 0.0 for each in tasks)
        between = [later - earlier for earlier, later in zip([began, *ends], ends, strict=False)]
        return time.monotonic() - began, between

    def _submitted(self, task: MakePictures) -> QueuedTask:
        while True:
            try:
                return self.queue.submit(task)
            except QueueFull:
                time.sleep(RETRY_SECONDS)


def measure(session: Session, root: Path, arguments: argparse.Namespace, together: int) -> dict[str, object]:
    """Measures one size of batch."""
    offline = Offline(session, root / f"{together}", arguments, together)
    row: dict[str, object] = {"label": f"batches of {together}"}
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        offline.make(3 * together)  # the first request may begin alone, before the others are in line
        with gpu_share(row):
            seconds, between = offline.make(max(arguments.pictures, 4 * together))
    finally:
        offline.queue.close()
    row |= {"pictures_per_second": len(between) / seconds, "pictures": len(between)}
    row |= {"median_between_seconds": statistics.median(between)}
    report = session.stable_fast_report
    row |= {"status": report.to_dict() if report is not None else None}
    if session.device.type == "cuda":
        row["peak_reserved_mib"] = torch.cuda.max_memory_reserved() / MIB
    print(f"{row['label']}: {row['pictures_per_second']:.3f} pictures/s, GPU {row['gpu_share']}", flush=True)
    return row


def run(arguments: argparse.Namespace) -> None:
    family = shrunk(FAMILIES[arguments.family]) if arguments.tiny else FAMILIES[arguments.family]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = write_project(root, family, torch.device(arguments.device), rank=1, overflows=False)
        session = Session(folders, device=arguments.device)
        rows = [measure(session, root, arguments, together) for together in map(int, arguments.batches.split(","))]
        vae = str(next(session.model(GenerationOptions(prompt="")).vae.parameters()).dtype)
    model = f"{arguments.family}-tiny" if arguments.tiny else arguments.family
    name = f"throughput-{model}-{arguments.size}-{arguments.steps}" + ("-alone" if arguments.waiting == 1 else "")
    name += "" if arguments.precision == "off" else f"-{arguments.precision}"
    write_result(name, rows, arguments=vars(arguments), vae_dtype=vae)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=tuple(FAMILIES), default="sdxl")
    parser.add_argument("--size", type=int, default=1024, help="pixels along one side")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=8.0)
    parser.add_argument("--level", choices=("off", "graph", "fused", "full"), default="full")
    parser.add_argument("--precision", choices=PRECISIONS, default="off")
    parser.add_argument("--batches", default="1,2,4,8", help="pictures in a batch at most, comma-separated")
    parser.add_argument("--pictures", type=int, default=32, help="for each size, at least four batches")
    parser.add_argument("--waiting", type=int, default=MOST_WAITING, help="requests in line at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks of the same form, to try the script")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
