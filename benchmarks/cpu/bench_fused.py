"""Tells whether a fused step is slower than an eager one on a CPU, where fused operations run in plain PyTorch.

    python -m benchmarks.cpu.bench_fused                     # the demo model at 128, a small network like SD1.5 at 256
    python -m benchmarks.cpu.bench_fused --networks sd15 --size 256 --seconds 4

It needs a quiet machine: the load average is in the result. Eager, fused and diffusers take turns, ten rounds each.
Each round gives one ratio. `ratio` is the median; `low` and `high` are the two ratios between which the true median
lies with a certainty of at least 95 %, whatever the times' distribution (the order statistics of a binomial with
p = 1/2; ten rounds: the second and the ninth). `verdict` is "slower" only if `low` is above 1, "faster" only if `high`
is below 1.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

import torch

from benchmarks.bench_unet import Bench
from benchmarks.common import ROOT, measure, write_result
from benchmarks.side_by_side import measure_all
from modules.loader.checkpoint import load_checkpoint
from modules.models.unet import UNet

DEMO = ROOT / "models" / "checkpoints" / "demo.safetensors"
SIZES = {"demo": 128, "sd15-tiny": 256, "sd15": 256}  # pixels along one side
SUBJECTS = ("eager", "fused", "diffusers", "diffusers-channels-last")
PAIRS = (("fused", "eager"), ("fused", "diffusers"), ("fused", "diffusers-channels-last"))
CERTAINTY = 0.95


class DemoBench(Bench):
    """The demo model's network instead of one with random weights."""

    def network(self) -> UNet:
        network = load_checkpoint(DEMO, device=self.device, dtype=self.dtype).unet.module
        assert isinstance(network, UNet)
        return network


def bench_of(name: str, size: int) -> Bench:
    shape = {"device": "cpu", "dtype": "float32", "model": "sd15", "tiny": name.endswith("tiny"), "batch": 2}
    kind = DemoBench if name == "demo" else Bench
    return kind(argparse.Namespace(**shape, size=size, tuning_seconds=0.0))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values, between which the median of their distribution lies with the wanted certainty.

    Raises ValueError for fewer than six values, which cannot be certain enough.
    """
    count, rank = len(values), 0
    outside = 2 / 2**count  # the chance that all values lie on one side of the median
    while outside <= 1 - CERTAINTY:
        rank += 1
        outside += 2 * math.comb(count, rank) / 2**count
    if rank == 0:
        raise ValueError(f"{count} values are too few; take at least six")
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank]


def compared(name: str, times: dict[str, list[float]], pair: tuple[str, str]) -> dict[str, object]:
    ours, theirs = (times[subject] for subject in pair)
    ratios = [first / second for first, second in zip(ours, theirs, strict=True)]
    low, high = interval(ratios)
    verdict = "slower" if low > 1 else "faster" if high < 1 else "no difference beyond noise"
    ratio = statistics.median(ratios)
    label = f"{name}: {pair[0]} / {pair[1]}"
    print(f"{label:40} {ratio:.3f} ({low:.3f} to {high:.3f})  {verdict}")
    return {"label": label, "ratio": ratio, "low": low, "high": high, "verdict": verdict}


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> None:
    rows: list[dict[str, object]] = []
    for name in arguments.networks.split(","):
        bench = bench_of(name, arguments.size or SIZES[name])
        every = bench.subjects()
        subjects = [every[subject] for subject in SUBJECTS]
        eager = every["eager"].make()
        once = measure(lambda step=eager, x=bench.x: step(x), warmup=1, repeats=3).median
        steps = max(1, round(arguments.seconds / once))  # so that each turn takes that long
        timed = measure_all(subjects, bench.x, bench.reference(), rounds=arguments.rounds, steps=steps, budget=math.inf)
        times = {subject.name: subject.device_ms for subject in subjects}
        rows += [{**row, "label": f"{name}: {row['label']}", "steps": steps} for row in timed]
        rows += [compared(name, times, pair) for pair in PAIRS]
    write_result("fused-on-cpu", rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="demo,sd15-tiny", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--size", type=int, help="pixels along one side, instead of each network's own")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long one turn of a subject takes")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
