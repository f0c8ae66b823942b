"""Times --cluster local: pictures per second by the number of workers, start-up, overhead, recovery from a kill.

    python -m benchmarks.serving.bench_cluster                            # SD1.5 at 512, 20 steps, on 1, 2, 4, ... GPUs
    python -m benchmarks.serving.bench_cluster --family sdxl --size 1024 --cfg 8 --pictures 12 --rounds 2
    python -m benchmarks.serving.bench_cluster --device cpu --tiny --workers 1,2 --pictures 8

Weights are random at the real shapes (with `--tiny`, at small shapes, to try the script). Every row makes the same
prompts with the same seeds, in one process and after a warm-up of each worker. `share_of_linear` compares a row with
that many times the first row. Prompts and the negative prompt are those of bench_throughput.py.

`overhead_ms` is what the way through the pool adds to a picture: on one worker, with nothing else to do, the time from
sending the task until its PNG is here, without the time that the same picture and its PNG take in this process. The
median of the differences counts. `recovery_seconds` is the time from `kill -9` of a busy worker until it has made its
next picture; `lost_seconds` the time until the picture that it was making came from anywhere.

It needs torch, pillow, tokenizers, safetensors and ray, and nothing else of the project's packages.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.common import write_result
from benchmarks.gpu.memory import FAMILIES, shrunk, write_project
from benchmarks.serving.bench_throughput import NEGATIVE, prompt
from modules.cluster.dispatcher import Seat
from modules.cluster.environment import prepare_import
from modules.cluster.messages import WorkerSettings
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.images.save import encode_png
from modules.tasks.task import MakePictures

if TYPE_CHECKING:
    from modules.cluster.pool import WorkerPool

Row = dict[str, Any]


def make(pool: WorkerPool, options: GenerationOptions) -> int:
    """Makes a request's pictures on the pool; returns how many."""
    return sum(1 for _ in pool.run(MakePictures(options=options), None, CancelToken()))


def make_all(pool: WorkerPool, requests: list[GenerationOptions]) -> float:
    """Makes many requests at once; returns the seconds."""
    with ThreadPoolExecutor(pool.size * 4) as threads:
        began = time.perf_counter()
        list(threads.map(lambda options: make(pool, options), requests))
        return time.perf_counter() - began


@contextmanager
def warm_pool(
    workers: int, options: GenerationOptions, folders: ModelFolders, arguments: argparse.Namespace
) -> Iterator[tuple[WorkerPool, Row]]:
    """Opens a pool and makes pictures until each worker has made some; the row tells how long that took."""
    from modules.cluster.connect import open_pool

    settings = WorkerSettings(root=folders.root, device=arguments.device, threads=arguments.threads)
    began = time.perf_counter()
    with open_pool("local", workers, settings, folders) as pool:
        row: Row = {"workers": workers, "ray_seconds": time.perf_counter() - began}
        while not all(seat.up for seat in pool.seats):
            time.sleep(0.01)
        row["start_seconds"] = time.perf_counter() - began
        while not all(seat.served for seat in pool.seats):
            make_all(pool, [options] * workers)
        row["warm_seconds"] = time.perf_counter() - began
        make_all(pool, [options] * workers * 2)
        yield pool, row


def measure_rate(pool: WorkerPool, row: Row, options: GenerationOptions, arguments: argparse.Namespace) -> None:
    """Adds the pictures per second of several rounds."""
    count = arguments.pictures * pool.size
    rates: list[float] = []
    for _ in range(arguments.rounds):
        requests = [replace(options, seed=seed, prompt=prompt(seed)) for seed in range(count)]
        rates.append(count * options.batch / make_all(pool, requests))
    row |= {"pictures_per_second": statistics.median(rates), "rates": rates}


def measure_recovery(pool: WorkerPool, row: Row, options: GenerationOptions) -> None:
    """Kills a worker amid its picture, and adds the seconds until the picture is here and until the worker is back."""
    import ray

    with ThreadPoolExecutor(1) as threads:
        picture = threads.submit(make, pool, options)
        seat = busy_seat(pool)
        _, number = ray.get(seat.worker.place.remote())
        os.kill(number, signal.SIGKILL)
        began = time.perf_counter()
        picture.result()
        row["lost_seconds"] = time.perf_counter() - began
        served = seat.served
        while not seat.up or seat.served == served:
            make_all(pool, [options] * pool.size)
        row["recovery_seconds"] = time.perf_counter() - began


def busy_seat(pool: WorkerPool) -> Seat:
    while True:
        for seat in pool.seats:
            if seat.busy:
                return seat
        time.sleep(0.001)


def measure_overhead(pool: WorkerPool, row: Row, options: GenerationOptions, session: Session, rounds: int) -> None:
    """Adds what the pool adds to a picture; both ways take turns, so that they meet the same clocks of the GPU."""
    here: list[float] = []
    there: list[float] = []
    for number in range(rounds + 1):
        request = replace(options, seed=number)
        began = time.perf_counter()
        for picture in generate(request, session):
            encode_png(picture.image, picture.parameters)
        here.append(time.perf_counter() - began)
        began = time.perf_counter()
        make(pool, request)
        there.append(time.perf_counter() - began)
    differences = [1000 * (far - near) / options.batch for near, far in zip(here[1:], there[1:], strict=True)]
    row["here_ms"] = 1000 * statistics.median(here[1:]) / options.batch
    row["overhead_ms"] = statistics.median(differences)
    row["overhead_ms_p90"] = statistics.quantiles(differences, n=10)[-1]


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    options = GenerationOptions(
        prompt=prompt(7), negative_prompt=NEGATIVE, width=arguments.size, height=arguments.size, steps=arguments.steps,
        seed=7, cfg=arguments.cfg, batch=arguments.batch, sampler="euler", scheduler="normal",
        stable_fast=arguments.stable_fast,
    )  # fmt: skip
    family = shrunk(FAMILIES[arguments.family]) if arguments.tiny else FAMILIES[arguments.family]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        folders = write_project(Path(folder), family, torch.device(arguments.device), rank=1, overflows=False)
        for workers in counts(arguments):
            with warm_pool(workers, options, folders, arguments) as (pool, row):
                rows.append(row)
                measure_rate(pool, row, options, arguments)
                row["share_of_linear"] = row["pictures_per_second"] * rows[0]["workers"] / (
                    rows[0]["pictures_per_second"] * workers
                )  # fmt: skip
                if workers == counts(arguments)[0]:
                    session = Session(folders, device=arguments.device)
                    measure_overhead(pool, row, options, session, arguments.overhead_rounds)
                    session.free()
                measure_recovery(pool, row, options)
            print({name: value for name, value in row.items() if name != "rates"}, flush=True)
    shape = f"{arguments.family}-tiny" if arguments.tiny else arguments.family
    write_result(f"cluster-{shape}-{arguments.size}", rows, arguments=vars(arguments), ray=version("ray"))


def counts(arguments: argparse.Namespace) -> list[int]:
    """Returns the numbers of workers to measure, by default 1, 2, 4, ... up to the number of GPUs."""
    if arguments.workers:
        return [int(number) for number in arguments.workers.split(",")]
    most = torch.cuda.device_count() if arguments.device == "cuda" else 2
    return [2**power for power in range(most.bit_length())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--workers", help="for example 1,2,4 (default: 1, 2, 4, ... up to the number of GPUs)")
    parser.add_argument("--pictures", type=int, default=40, help="requests for each worker in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overhead-rounds", type=int, default=30)
    parser.add_argument("--family", choices=tuple(FAMILIES), default="sd15")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--stable-fast", default="full", choices=("off", "graph", "fused", "full"))
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, in each worker and here")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    prepare_import()
    run(parser.parse_args())


if __name__ == "__main__":
    main()
