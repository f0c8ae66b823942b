"""Times every implementation of every fused operation at the shapes of whole workloads, and writes the table we ship.

    python -m benchmarks.tune --out modules/stable_fast/tuned

Workloads are MODEL-SIZE-BATCH for UNets and vae-SIZE-BATCH. Triton compiles one kernel after the other in a process, so
first one process for each workload runs everything once, all of them together, only to fill Triton's cache on disk.
The table of this GPU in the folder is deleted first, with `--ops` only those rows: what it names is not timed again.
"""

from __future__ import annotations

import argparse
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
from modules.generation.runner import UNetInputs
from modules.stable_fast import CompiledModule, StableFastConfig, StableFastRunner
from modules.stable_fast.cache import CACHE_VARIABLE
from modules.stable_fast.kernels._dispatch import CHOICES
from modules.stable_fast.kernels._timing import time_on_gpu
from modules.stable_fast.tuning import BudgetTuner, environment, read_choices, shipped_path, write_choices

WORKLOADS = "sd15-512-2,sd15-512-8,sd15-768-2,sd15-1024-2,sd21-512-2,sd21-768-2,vae-512-1,vae-768-1,vae-1024-1"
DEVICE = torch.device("cuda")


def only_compile(call: Callable[[], Any], warm: Any) -> float:
    """Stands in for the timer: runs an implementation once, which compiles it."""
    call()
    return 0.0


@torch.inference_mode()
def run_workload(workload: str) -> None:
    """One uncaptured run, in which each operation at each shape asks the tuner once."""
    model, size, batch = workload.split("-")
    arguments = argparse.Namespace(
        model=model, size=int(size), batch=int(batch), device="cuda", dtype="float16", tuning_seconds=0.0
    )
    if model == "vae":
        bench = VAEBench(arguments, DEVICE, torch.float16)
        CompiledModule(bench.decoder, dims=DECODER_DIMS, level="fused")(bench.x)
        return
    unet = Bench(arguments)
    runner = StableFastRunner(unet.unet, StableFastConfig(level="fused"))
    runner.prepare(UNetInputs(context=unet.context), [TIMESTEP])
    runner.step(unet.x, TIMESTEP)


def fill_cache(workloads: list[str], limit: float) -> None:
    commands = [[sys.executable, "-m", "benchmarks.tune", "--only-compile", "--workloads", name] for name in workloads]
    running = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    deadline = time.monotonic() + limit
    for process in running:
        try:
            process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def forget(path: Path, ops: set[str] | None) -> None:
    """Deletes the choices of these operations, or all."""
    kept = [measured for measured in read_choices(path) if ops is not None and measured.op not in ops]
    path.unlink(missing_ok=True)
    if kept:
        write_choices(path, environment(DEVICE), kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=WORKLOADS)
    parser.add_argument("--seconds", type=float, default=300.0, help="for timing, after the kernels are compiled")
    parser.add_argument("--out", type=Path, help="folder of the table; left out, nothing is written")
    parser.add_argument("--ops", help="only these, with commas between; other choices of the table stay")
    parser.add_argument("--only-compile", action="store_true", help="run every implementation once and time none")
    arguments = parser.parse_args()
    workloads = arguments.workloads.split(",")
    described = environment(DEVICE)
    path = shipped_path(arguments.out, described) if arguments.out else None
    if path:
        forget(path, set(arguments.ops.split(",")) if arguments.ops else None)
    os.environ.setdefault(CACHE_VARIABLE, tempfile.mkdtemp())  # choices of this computer's own are left aside
    if not arguments.only_compile:
        fill_cache(workloads, 150.0)
    tuner = BudgetTuner(arguments.seconds, only_compile if arguments.only_compile else time_on_gpu)
    CHOICES.tuner = tuner
    for workload in workloads:
        began = time.monotonic()
        run_workload(workload)
        print(f"{workload}: {time.monotonic() - began:.1f} s, {len(tuner.measured)} choices, {tuner.skipped} skipped")
    if path:
        write_choices(path, described, tuner.measured)
        print(f"written: {path}")


if __name__ == "__main__":
    main()
