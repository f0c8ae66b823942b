"""Times every implementation of every fused operation at the shapes of whole workloads, and writes the table we ship.

    python -m benchmarks.gpu.tune --out modules/stable_fast/store/tuned

Workloads are MODEL-SIZE-BATCH for UNets, and vae-SIZE-BATCH. Each is tuned as `--stable-fast-tune` tunes a picture.
During timing, Triton would compile one implementation after the other. So the program first runs one process per
workload, all at once, just to fill Triton's cache on disk. It also deletes this GPU's table in the folder (with
`--ops`, only the rows of those ops), because calls that are listed in the table are not timed again.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_networks import DECODER_DIMS, VAEBench
from benchmarks.bench_unet import TIMESTEP, Bench
from benchmarks.common import ROOT
from modules.core.runner import Conditioning
from modules.stable_fast import CompiledModule, StableFastConfig, StableFastRunner
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.store.cache import CACHE_VARIABLE
from modules.stable_fast.store.tables import (
    SHIPPED,
    choices_path,
    environment,
    read_choices,
    shipped_path,
    write_choices,
)
from modules.stable_fast.store.tuning import BudgetTuner

WORKLOADS = (
    "sd15-512-2,sd15-512-8,sd15-768-2,sd15-1024-2,sd21-512-2,sd21-768-2,sdxl-1024-2,vae-512-1,vae-768-1,vae-1024-1"
)
DEVICE = torch.device("cuda")


def only_compile(call: Callable[[], Any], warm: Any) -> float:
    """Stands in for a timer: runs an implementation once, so that it gets compiled."""
    call()
    return 0.0


@torch.inference_mode()
def run_workload(workload: str, seconds: float) -> None:
    """Runs the first step at one shape, with `seconds` for tuning."""
    model, size, batch = workload.split("-")
    arguments = argparse.Namespace(
        model=model, size=int(size), batch=int(batch), device="cuda", dtype="float16", tuning_seconds=seconds
    )
    if model == "vae":
        bench = VAEBench(arguments, DEVICE, torch.float16)
        CompiledModule(bench.decoder, dims=DECODER_DIMS, tuning_seconds=seconds)(bench.x)
        return
    unet = Bench(arguments)
    runner = StableFastRunner(unet.unet, StableFastConfig(tuning_seconds=seconds, timed_against_eager=False))
    runner.prepare(Conditioning(texts=(unet.text,)), [TIMESTEP])
    runner.step(unet.x, TIMESTEP)


def fill_cache(workloads: list[str], limit: float) -> None:
    commands = [
        [sys.executable, "-m", "benchmarks.gpu.tune", "--only-compile", "--workloads", name] for name in workloads
    ]
    running = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    deadline = time.monotonic() + limit
    for process in running:
        try:
            process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=WORKLOADS)
    parser.add_argument("--seconds", type=float, default=120.0, help="for timing one workload, with kernels compiled")
    parser.add_argument("--out", type=Path, help="folder of the table; without it nothing is written")
    parser.add_argument("--ops", nargs="+", help="time these again and keep the table's other rows")
    parser.add_argument("--only-compile", action="store_true", help="run every implementation once and time none")
    arguments = parser.parse_args()
    workloads = arguments.workloads.split(",")
    if arguments.only_compile:
        CHOICES.tuner = BudgetTuner(math.inf, only_compile)  # called while kernels are compiled ahead, on all cores
        for workload in workloads:
            run_workload(workload, 0.0)
        return
    described = environment(DEVICE)
    path = shipped_path(arguments.out, described) if arguments.out else None
    if arguments.ops:
        if path is None or path.parent.resolve() != SHIPPED:
            parser.error(f"--ops needs --out {SHIPPED}, the folder of the table in force")
        named = {old.op for old in read_choices(path)}
        if unknown := set(arguments.ops) - named:
            parser.error(f"the table has no {', '.join(sorted(unknown))}, but {', '.join(sorted(named))}")
    kept = [old for old in read_choices(path) if arguments.ops and old.op not in arguments.ops] if path else []
    if path:
        path.unlink(missing_ok=True)
        write_choices(path, described, kept)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder  # so that choices stored on this computer are ignored
        fill_cache(workloads, 150.0)
        for workload in workloads:
            began = time.monotonic()
            run_workload(workload, arguments.seconds)
            measured = read_choices(choices_path(Path(folder), described))
            print(f"{workload}: {time.monotonic() - began:.1f} s, {len(measured)} choices", flush=True)
    if path:  # an op was timed again if its kept row needs a library that is missing here
        write_choices(path, described, [*measured, *kept])
        print(f"written: {path}")


if __name__ == "__main__":
    main()
