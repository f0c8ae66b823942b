r"""Measures a server under load: pictures per second, latency and GPU share, with and without sharing batches.

    python -m benchmarks.serving.bench_server                          # SD1.5 at 512, 20 steps, 1 to 64 clients
    python -m benchmarks.serving.bench_server --steps 4 --cfg 1        # like a few-step model
    python -m benchmarks.serving.bench_server --device cpu --checkpoint demo --size 256 --steps 2 --clients 1,4 \
        --requests 8

Each client sends a request, waits until the picture is on disk, and sends the next. Subjects: `together` is our queue,
`one-by-one` the same queue with batches of one, `one-at-a-time` that queue if a request begins when the picture before
is on disk (A1111's way), `diffusers` an eager pipeline behind a lock. Clients are threads of this process, so that no
web server is measured. Without `--checkpoint`, weights are random at SD1.5's shapes (with `--tiny`, at small shapes).
Each load first runs once unmeasured, for compilation and capture. The GPU's share is that of a further run of half the
requests, because nvidia-smi makes some requests wait.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from benchmarks.bench_generate import diffusers, project
from benchmarks.common import keep_result, write_result
from modules.core.errors import OptionsError
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.images.save import save_png
from modules.tasks.queue import TaskQueue
from modules.tasks.task import MakePictures

Row = dict[str, object]
Serve = Callable[[int], None]  # makes the picture of a request by its number; returns when the picture is on disk

SUBJECTS = ("together", "one-by-one", "one-at-a-time", "diffusers")
RETRY_SECONDS = 0.02  # after the queue is full, as a client would try again
GPU_SAMPLE_MS = 100


@contextmanager
def our_queue(session: Session, output: Path, arguments: argparse.Namespace, most: int | None) -> Iterator[Serve]:
    """Serves through the queue of the page, with `most` pictures in a batch."""
    queue = TaskQueue(lambda: session, OutputFolder(output), most_together=most, gather_ms=arguments.gather_ms)

    def serve(number: int) -> None:
        options = GenerationOptions(
            prompt=f"a lighthouse on a cliff, number {number}", width=arguments.size, height=arguments.size,
            steps=arguments.steps, seed=number, cfg=arguments.cfg, sampler="euler", scheduler="normal",
            stable_fast=arguments.stable_fast, checkpoint=arguments.checkpoint,
        )  # fmt: skip
        while True:
            try:
                queued = queue.submit(MakePictures(options=options))
                break
            except OptionsError:
                time.sleep(RETRY_SECONDS)
        queued.wait()
        if queued.state != "done":
            raise RuntimeError(queued.error)

    try:
        yield serve
    finally:
        queue.close()


@contextmanager
def one_at_a_time(serve: Serve) -> Iterator[Serve]:
    """Begins no request before the picture of the one before is on disk, as A1111 does; in order of arrival."""
    with ThreadPoolExecutor(1) as line:
        yield lambda number: line.submit(serve, number).result()


@contextmanager
def diffusers_server(output: Path, arguments: argparse.Namespace) -> Iterator[Serve]:
    """Serves one request after the other through diffusers' eager pipeline, like a small server without batches."""
    make, lock = diffusers(None, arguments), threading.Lock()

    def serve(number: int) -> None:
        with lock:
            image = Image.fromarray(make(number))
            save_png(image, output, number)

    yield serve


@dataclass
class Load:
    """A number of clients that share a number of requests."""

    serve: Serve
    clients: int
    requests: int
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def run(self) -> Load:
        numbers = itertools.count()
        began = time.perf_counter()
        with ThreadPoolExecutor(self.clients) as pool:
            clients = [pool.submit(self._client, numbers) for _ in range(self.clients)]
        for client in clients:
            client.result()
        self.seconds = time.perf_counter() - began
        return self

    def _client(self, numbers: Iterator[int]) -> None:
        while (number := next(numbers)) < self.requests:
            began = time.perf_counter()
            self.serve(number)
            self.latencies.append(time.perf_counter() - began)

    def row(self) -> Row:
        return {
            "clients": self.clients,
            "requests": self.requests,
            "pictures_per_second": self.requests / self.seconds,
            "p50_seconds": statistics.median(self.latencies),
            "p99_seconds": sorted(self.latencies)[int(0.99 * len(self.latencies))],
        }


@contextmanager
def gpu_share(row: Row) -> Iterator[None]:
    """Adds the share of time in which the GPU ran a kernel, as nvidia-smi tells it; None without an NVIDIA GPU."""
    row["gpu_share"] = None
    if not torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        yield
        return
    # nvidia-smi counts all GPUs, also those that CUDA_VISIBLE_DEVICES hides.
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    which = ["nvidia-smi", f"--id=GPU-{gpu}", "--query-gpu=utilization.gpu"]
    command = [*which, "--format=csv,noheader,nounits", f"--loop-ms={GPU_SAMPLE_MS}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sampler:
        assert sampler.stdout is not None
        sampler.stdout.readline()  # while it starts, the driver may keep others waiting
        yield
        sampler.terminate()
        shares = [int(line) for line in sampler.stdout if line.strip().isdigit()]
    row["gpu_share"] = statistics.mean(shares) / 100 if shares else None


def measure(label: str, serve: Serve, arguments: argparse.Namespace) -> Iterator[Row]:
    for clients in map(int, arguments.clients.split(",")):
        first = Load(serve, clients, 2 * clients).run()
        requests = max(arguments.requests, 2 * clients)
        row: Row = {"label": label} | Load(serve, clients, requests).run().row()
        row["slowest_of_first_seconds"] = max(first.latencies)
        with gpu_share(row):
            Load(serve, clients, requests // 2).run()
        print(
            f"{label:13} {clients:3} clients: {row['pictures_per_second']:7.2f} pictures/s, "
            f"p50 {row['p50_seconds']:.3f} s, p99 {row['p99_seconds']:.3f} s, GPU {row['gpu_share']}",
            flush=True,
        )
        yield row


def subject(name: str, folders: ModelFolders, output: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    if name == "diffusers":
        yield from diffusers_rows(output, arguments)
        return
    most = arguments.most_together if name == "together" else 1
    session = Session(folders, device=arguments.device)
    try:
        with our_queue(session, output, arguments, most) as serve:
            if name != "one-at-a-time":
                yield from measure(name, serve, arguments)
                return
            with one_at_a_time(serve) as serve_next:
                yield from measure(name, serve_next, arguments)
    finally:
        session.free()


def diffusers_rows(output: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    if arguments.checkpoint:
        yield skipped("diffusers", "it is measured with random weights only; leave out --checkpoint")
        return
    try:
        with diffusers_server(output, arguments) as serve:
            yield from measure("diffusers", serve, arguments)
    except ModuleNotFoundError as error:
        yield skipped("diffusers", f"{error.name} is not installed")


def skipped(name: str, reason: str) -> Row:
    print(f"{name} is left out: {reason}.", flush=True)
    return {"label": name, "error": reason}


def run(arguments: argparse.Namespace) -> None:
    shape = arguments.checkpoint or ("tiny" if arguments.tiny else "sd15")
    result = f"server-{Path(shape).stem}-{arguments.size}-{arguments.steps}"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = ModelFolders() if arguments.checkpoint else project(root, tiny=arguments.tiny)
        os.sync()  # else the first pictures would wait until the disk has the checkpoint
        for name in arguments.subjects.split(","):
            for row in subject(name, folders, root / name, arguments):
                rows.append(row)
                keep_result(result, rows, arguments=vars(arguments))
    write_result(result, rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint", help="one of models/checkpoints (default: random weights)")
    parser.add_argument("--tiny", action="store_true", help="small random networks, to try the script")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--stable-fast", default="full", help="level of our subjects")
    parser.add_argument("--clients", default="1,2,4,8,16,64", help="comma-separated")
    parser.add_argument("--requests", type=int, default=64, help="for each number of clients, at least two a client")
    parser.add_argument("--most-together", type=int, default=8)
    parser.add_argument("--gather-ms", type=float, default=0.0)
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help="comma-separated")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
