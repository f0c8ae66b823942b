"""Times every implementation of every fused operation at the shapes of whole workloads, and writes the table we ship.

    python -m benchmarks.gpu.tune --out modules/stable_fast/store/tuned
    python -m benchmarks.gpu.tune --class mma --capability 8.9 --out modules/stable_fast/store/tuned

Workloads are MODEL-SIZE-BATCH for UNets, and vae-SIZE-BATCH. Each is tuned as `--stable-fast-tune` tunes a picture.
During timing, Triton would compile one implementation after the other. So the program first runs one process per
model, all at once, just to fill Triton's cache on disk. It also deletes this GPU's table in the folder (with
`--ops`, only the rows of those ops), because calls that are listed in the table are not timed again. With `--add` it
keeps all rows, and times only what they lack: `--add --workloads sd15-512-16` for eight pictures with guidance at once.

With `--class`, the table is for cards of a class that have none of their own. Of a class that this GPU is not of, it is
measured while the GPU passes for one (see said_card.py), and says so. Calls in this GPU's table are not timed again.
Two files are written: the class's table, with the rows that it had at other shapes, and all that was measured,
named after the GPU or what it passes for.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.bench_networks import DECODER_DIMS, VAEBench
from benchmarks.bench_unet import TIMESTEP, Bench
from benchmarks.common import ROOT
from benchmarks.gpu.said_card import capability, said_to_be
from modules.core.runner import Conditioning
from modules.stable_fast import CompiledModule, StableFastConfig, StableFastRunner
from modules.stable_fast.kernels.candidates import is_position
from modules.stable_fast.kernels.devices import CardClass, card_named
from modules.stable_fast.kernels.timing import GpuTimer
from modules.stable_fast.store import ready
from modules.stable_fast.store.cache import CACHE_VARIABLE
from modules.stable_fast.store.tables import (
    SHIPPED,
    Measured,
    choices_path,
    class_path,
    environment,
    read_choices,
    shipped_path,
    write_choices,
)
from modules.stable_fast.store.tuning import BudgetTuner

WORKLOADS = (
    "sd15-512-2,sd15-512-8,sd15-512-16,sd15-768-2,sd15-1024-2,sd21-512-2,sd21-768-2,sdxl-1024-2,"
    "vae-512-1,vae-768-1,vae-1024-1"
)
OF_A_CLASS = "sd15-512-2,sd15-640x512-2,sd15-768-2,sd15-1024-2,sd21-768-2,sdxl-1024-2"
DEVICE = torch.device("cuda")


@torch.inference_mode()
def run_workload(workload: str, seconds: float) -> None:
    """Runs the first step at one shape, with `seconds` for tuning."""
    model, size, batch = workload.split("-")
    arguments = argparse.Namespace(
        model=model, size=size, batch=int(batch), device="cuda", dtype="float16", tuning_seconds=seconds
    )
    if model == "vae":
        arguments.size = int(size)
        bench = VAEBench(arguments, DEVICE, torch.float16)
        CompiledModule(bench.decoder, dims=DECODER_DIMS, tuning_seconds=seconds)(bench.x)
        return
    unet = Bench(arguments)
    runner = StableFastRunner(unet.unet, StableFastConfig(tuning_seconds=seconds, timed_against_eager=False))
    runner.prepare(Conditioning(texts=(unet.text,)), [TIMESTEP])
    runner.step(unet.x, TIMESTEP)


def fill_cache(workloads: Sequence[str], said: str | None, limit: float) -> None:
    """Compiles what the first workload of each model needs; those of other sizes need little more."""
    firsts = {name.partition("-")[0]: name for name in reversed(workloads)}
    compiling = [sys.executable, "-m", "benchmarks.gpu.tune", "--only-compile"]
    compiling += ["--capability", said] if said else []
    running = [subprocess.Popen([*compiling, "--workloads", name], cwd=ROOT) for name in firsts.values()]
    deadline = time.monotonic() + limit
    for process in running:
        try:
            process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def only_compile_all(workloads: Sequence[str]) -> None:
    """Compiles on all cores what tuning would time."""
    with patch.object(ready, "tuning", lambda *_: nullcontext(BudgetTuner(0.0, GpuTimer()))):
        for workload in workloads:
            run_workload(workload, math.inf)


def measure_all(workloads: Sequence[str], said: str | None, seconds: float) -> list[Measured]:
    """Times all calls that are not in the table in force."""
    described, measured = environment(DEVICE), list[Measured]()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder  # so that choices stored on this computer are ignored
        began = time.monotonic()
        fill_cache(workloads, said, 150.0)
        print(f"compiled: {time.monotonic() - began:.1f} s", flush=True)
        for workload in workloads:
            began = time.monotonic()
            run_workload(workload, seconds)
            measured = read_choices(choices_path(Path(folder), described))
            print(f"{workload}: {time.monotonic() - began:.1f} s, {len(measured)} choices", flush=True)
    return measured


def rows_to_keep(path: Path, ops: list[str] | None) -> list[Measured]:
    """The table's rows of other ops than those to be timed again. Raises ValueError for an op that is not in it."""
    before = read_choices(path)
    if unknown := set(ops or ()) - {old.op for old in before}:
        there = ", ".join(sorted({old.op for old in before}))
        raise ValueError(f"the table has no {', '.join(sorted(unknown))}, but {there}")
    return [old for old in before if ops and old.op not in ops]


def tune(arguments: argparse.Namespace) -> None:
    """Writes the table of this GPU."""
    workloads = (arguments.workloads or WORKLOADS).split(",")
    if not arguments.out:
        measure_all(workloads, None, arguments.seconds)
        return
    described = environment(DEVICE)
    path = shipped_path(arguments.out, described)
    kept = read_choices(path) if arguments.add else rows_to_keep(path, arguments.ops)
    path.unlink(missing_ok=True)
    write_choices(path, described, kept)
    # An op was timed again if its kept row needs a library that is missing here.
    write_choices(path, described, [*measure_all(workloads, None, arguments.seconds), *kept])
    print(f"written: {path}")


def tune_class(kind: CardClass, arguments: argparse.Namespace) -> None:
    """Writes all that was measured, and the table of a class, which has what it tells of other cards."""
    described = environment(DEVICE)
    card = card_named(described["chip"])
    if card is None or card.kind is not kind:
        raise ValueError(f"{described['chip']} is not of the class {kind.value}: say a --capability that is")
    workloads = (arguments.workloads or OF_A_CLASS).split(",")
    in_force = read_choices(shipped_path(SHIPPED, described))
    measured = measure_all(workloads, arguments.capability, arguments.seconds)
    said = {"said_capability": arguments.capability} if arguments.capability else {}
    rows, path = [*in_force, *measured], shipped_path(arguments.out, described)
    of_class = [*read_choices(class_path(SHIPPED, kind)), *map(for_a_class, rows)]  # the later ones of a shape hold
    for file, content in ((path, rows), (class_path(arguments.out, kind), of_class)):
        file.unlink(missing_ok=True)
        write_choices(file, described | said, content)
        print(f"written: {file}, {len(content)} rows")


def for_a_class(row: Measured) -> Measured:
    """What a row tells of other cards: nothing of positions in a library's list, nor of wrong results."""
    right = {name: time for name, time in row.of_right_results().items() if time < math.inf and not is_position(name)}
    return Measured(row.op, row.key, min(right, key=right.__getitem__, default=row.name), right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", help=f"default: {WORKLOADS}; with --class: {OF_A_CLASS}")
    parser.add_argument("--seconds", type=float, default=120.0, help="for timing one workload, with kernels compiled")
    parser.add_argument("--out", type=Path, help="folder of the table; without it nothing is written")
    parser.add_argument("--ops", nargs="+", help="time these again and keep the table's other rows")
    parser.add_argument("--add", action="store_true", help="keep the table's rows and add those of these workloads")
    parser.add_argument("--capability", help="what this GPU passes for, such as 8.9; needs --class")
    parser.add_argument("--class", dest="kind", type=CardClass, help="mma, wgmma or tcgen05: write the class's table")
    parser.add_argument("--only-compile", action="store_true", help="run every implementation once and time none")
    arguments = parser.parse_args()
    in_force = arguments.out and arguments.out.resolve() == SHIPPED and not arguments.kind
    if (arguments.ops or arguments.add) and not in_force:
        parser.error(f"--ops and --add need --out {SHIPPED}, the folder of the table in force, and no --class")
    if arguments.kind and not arguments.out:
        parser.error("--class needs --out")
    if arguments.capability and not (arguments.kind or arguments.only_compile):
        parser.error("--capability needs --class, since the times would not be this GPU's own")
    with said_to_be(capability(arguments.capability) if arguments.capability else None):
        if arguments.only_compile:
            return only_compile_all((arguments.workloads or WORKLOADS).split(","))
        try:
            tune_class(arguments.kind, arguments) if arguments.kind else tune(arguments)
        except ValueError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
