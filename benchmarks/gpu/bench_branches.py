"""Times steps whose graphs have branches, and the same without, in turn: UNets, and a UNet with a ControlNet.

    python -m benchmarks.gpu.bench_branches                         # SD1.5 at 512 px, alone and with a ControlNet
    python -m benchmarks.gpu.bench_branches --cases sd15-512-2,sd15-512-8,sdxl-1024-2,controlnet-512-2
    python -m benchmarks.gpu.bench_branches --cases sd15-64-2 --device cpu --tiny --rounds 1    # to try it

`different`: the share of results whose bits differ from those without branches, which should be none.
"""

from __future__ import annotations

import argparse
from unittest import mock

import torch

from benchmarks.bench_networks import ControlNetBench
from benchmarks.bench_unet import Bench
from benchmarks.common import write_result
from benchmarks.side_by_side import Rows, Step, Subject, measure_all
from modules.stable_fast.runtime import program

CASES = "sd15-512-2,controlnet-512-2"


def bench_of(case: str, arguments: argparse.Namespace) -> Bench | ControlNetBench:
    model, size, batch = case.split("-")
    given = argparse.Namespace(**vars(arguments) | {"model": model, "size": int(size), "batch": int(batch)})
    if model == "controlnet":
        kind = getattr(torch, arguments.dtype or ("float32" if arguments.device == "cpu" else "float16"))
        return ControlNetBench(given, torch.device(arguments.device), kind)
    return Bench(given)


def with_and_without(bench: Bench | ControlNetBench) -> tuple[Step, Step]:
    """The step with and without branches. Both are captured now."""

    def captured() -> Step:
        step = bench.ours("full")() if isinstance(bench, Bench) else bench.ours("full")
        step(bench.x)
        return step

    with mock.patch.object(program, "with_branches", lambda module: module):
        without = captured()
    return captured(), without


def measure(case: str, arguments: argparse.Namespace) -> Rows:
    bench = bench_of(case, arguments)
    branched, plain = with_and_without(bench)
    inputs = [torch.randn_like(bench.x) for _ in range(arguments.compared)]
    differs = [not torch.equal(branched(x), plain(x)) for x in inputs]
    subjects = [Subject(f"{case}, branches", lambda: branched), Subject(f"{case}, one line", lambda: plain)]
    rows = measure_all(subjects, bench.x, plain(bench.x), rounds=arguments.rounds, steps=arguments.steps, budget=60.0)
    rows[0]["different"] = sum(differs) / len(differs)
    print(f"{case}: {rows[1]['ms'] - rows[0]['ms']:+.3f} ms gained, {sum(differs)} of {len(differs)} results differ")
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES, help="MODEL-SIZE-ROWS,...")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--tiny", action="store_true", help="small networks of the same form, to try the script")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=5, help="evaluations per round")
    parser.add_argument("--compared", type=int, default=50, help="results whose bits are compared")
    arguments = parser.parse_args()
    rows: Rows = []
    for case in arguments.cases.split(","):
        rows += measure(case, arguments)
        write_result("branches", rows, arguments=vars(arguments))


if __name__ == "__main__":
    main()
