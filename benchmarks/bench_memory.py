"""Measures peak GPU memory of one UNet step, each way in a separate process, including weights and warm-up.

python -m benchmarks.bench_memory --size 512 --batch 2 --subjects eager,fused,full,diffusers
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from benchmarks.bench_unet import MODELS, Bench
from benchmarks.common import ROOT, write_result
from benchmarks.side_by_side import Subject, warm_up

MIB = 2**20


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Measures the peak while compiling and running, and the peak of warm steps.

    The memory of a captured graph counts as allocated only during the capture; `reserved_mib` includes it.
    """
    bench = Bench(argparse.Namespace(**vars(arguments) | {"device": "cuda", "dtype": "float16", "tuning_seconds": 0.0}))
    subject: Subject = bench.subjects()[arguments.subject]
    if arguments.subject.startswith("diffusers"):
        step = subject.make()
        bench.unet.to("meta")
        subject.make = lambda: step
    warm_up(subject, bench.x, None)
    if subject.step is None:
        return {"label": arguments.subject, **subject.row}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        subject.step(bench.x)
    torch.cuda.synchronize()
    return {
        "label": arguments.subject,
        "compile_peak_mib": subject.row["peak_mib"],
        "peak_mib": torch.cuda.max_memory_allocated() / MIB,
        "reserved_mib": torch.cuda.max_memory_reserved() / MIB,
    }


def start(subject: str, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    shape = ["--model", arguments.model, "--size", str(arguments.size), "--batch", str(arguments.batch)]
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--subject", subject, *shape]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="sd15")
    parser.add_argument("--size", type=int, default=512, help="pixels along one side")
    parser.add_argument("--batch", type=int, default=2, help="rows of the network")
    parser.add_argument("--subjects", default="eager,graph,fused,full,diffusers")
    parser.add_argument("--subject", help="measure this one here and print its row (for the subprocesses)")
    arguments = parser.parse_args()
    if arguments.subject:
        print(json.dumps(measure(arguments)))
        return
    # All processes run at once, since they do not affect each other's memory.
    running = [start(subject, arguments) for subject in arguments.subjects.split(",")]
    rows = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    name = f"memory-{arguments.model}-{arguments.size}-b{arguments.batch}"
    write_result(name, rows, arguments={key: value for key, value in vars(arguments).items() if key != "subject"})


if __name__ == "__main__":
    main()
