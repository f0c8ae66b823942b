"""Measures the cost of compiling: first call with empty and filled caches, new resolution, LoRA switch, break-even.

    python -m benchmarks.bench_compile                              # SD1.5 at 512, batch 2, every subject
    python -m benchmarks.bench_compile --model sdxl --size 1024 --subjects full
    python -m benchmarks.bench_compile --device cpu --tiny --subjects full --limit 120

Each subject runs in two fresh processes ("cold", then "warm") that share an initially empty cache folder. A process
that exceeds `--limit` seconds is stopped, and its row records this.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks import bench_unet
from benchmarks.common import ROOT, synchronise, write_result
from modules.core.runner import Conditioning
from modules.stable_fast import StableFastConfig, StableFastRunner

TORCH_COMPILE = {
    "diffusers-compile": "default",
    "diffusers-reduce-overhead": "reduce-overhead",
    "diffusers-max-autotune": "max-autotune",
}
SUBJECTS = ("full", *TORCH_COMPILE)
MARK = "RESULT "
STEPS = 20  # per picture, for the break-even


def bench_for(arguments: argparse.Namespace) -> bench_unet.Bench:
    fields = {"batch": 2, "dtype": None, "tuning_seconds": 0.0}
    return bench_unet.Bench(argparse.Namespace(**vars(arguments) | fields))


def seconds(function: Any, *inputs: Any) -> float:
    synchronise()
    began = time.perf_counter()
    function(*inputs)
    synchronise()
    return time.perf_counter() - began


def steady_ms(step: Any, x: torch.Tensor) -> float:
    return min(seconds(step, x) for _ in range(10)) * 1000


@torch.inference_mode()
def ours(bench: bench_unet.Bench) -> dict[str, object]:
    config = StableFastConfig(timed_against_eager=False)
    runner = StableFastRunner(bench.unet, config)
    counters = runner.report.counters

    def step(x: torch.Tensor) -> torch.Tensor:
        return runner.step(x, bench_unet.TIMESTEP)

    runner.prepare(Conditioning(texts=(bench.text,)), [bench_unet.TIMESTEP])
    row: dict[str, object] = {"first_call_seconds": seconds(step, bench.x), "ms": steady_ms(step, bench.x)}
    row["new_resolution_seconds"] = seconds(step, larger(bench.x))
    before = copy.copy(counters)
    names = [name for name, weight in bench.unet.named_parameters() if "attn" in name and weight.ndim == 2]
    weights = dict(bench.unet.named_parameters())
    with torch.no_grad():
        for name in names:
            weights[name].mul_(1.001)
    row["lora_weights"] = len(names)
    row["lora_switch_seconds"] = seconds(runner.refresh_weights, set(names))
    runner.prepare(Conditioning(texts=(bench.text,)), [bench_unet.TIMESTEP])
    row["first_step_after_lora_seconds"] = seconds(step, bench.x)
    row["recaptures"], row["retraces"] = counters.captures - before.captures, counters.traces - before.traces
    row["level"], row["reason"] = runner.report.level, runner.report.reason
    return row


@torch.inference_mode()
def torch_compiled(bench: bench_unet.Bench, mode: str) -> dict[str, object]:
    step = bench.diffusers(channels_last=True, mode=mode)()
    row: dict[str, object] = {"first_call_seconds": seconds(step, bench.x), "ms": steady_ms(step, bench.x)}
    row["new_resolution_seconds"] = seconds(step, larger(bench.x))
    return row


def larger(x: torch.Tensor) -> torch.Tensor:
    """Makes the latent of a picture that is 128 pixels taller."""
    return torch.randn(*x.shape[:2], x.shape[2] + 16, x.shape[3], device=x.device)


def child(arguments: argparse.Namespace) -> None:
    """Measures one subject in this process and prints its numbers to standard output."""
    bench = bench_for(arguments)
    with torch.inference_mode():
        eager = bench.ours("off")()
        seconds(eager, bench.x)
        eager_ms = steady_ms(eager, bench.x)
    subject = arguments.child
    row = ours(bench) if subject == "full" else torch_compiled(bench, TORCH_COMPILE[subject])
    gained = (eager_ms - float(str(row["ms"]))) * STEPS / 1000
    first = float(str(row["first_call_seconds"]))
    row |= {"eager_ms": eager_ms, "break_even_images": math.ceil(first / gained) if gained > 0 else None}
    print(MARK + json.dumps(row))


def spawn(subject: str, caches: str, arguments: argparse.Namespace) -> dict[str, object]:
    names = ("LIGHTDIFFUSION_CACHE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    environment = os.environ | {name: os.path.join(caches, name) for name in names}
    command = [sys.executable, "-m", "benchmarks.bench_compile", "--child", subject]
    command += ["--device", arguments.device, "--model", arguments.model, "--size", str(arguments.size)]
    command += ["--tiny"] * arguments.tiny
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=arguments.limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {arguments.limit:.0f} s"}
    found = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not found:
        return {"error": done.stderr.strip()[-500:]}
    return {**json.loads(found[-1].removeprefix(MARK)), "process_seconds": time.perf_counter() - began}


def run(arguments: argparse.Namespace) -> None:
    rows: list[dict[str, object]] = []
    for subject in arguments.subjects.split(","):
        with tempfile.TemporaryDirectory() as caches:
            for state in ("cold", "warm"):
                row = {"label": f"{subject} {state}", **spawn(subject, caches, arguments)}
                rows.append(row)
                print(json.dumps(row), flush=True)
                if "error" in row:
                    break
    model = f"{arguments.model}-tiny" if arguments.tiny else arguments.model
    name = f"compile-{model}-{arguments.size}-b2"
    write_result(name, rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", choices=tuple(bench_unet.MODELS), default="sd15")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--subjects", default=",".join(SUBJECTS))
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each process")
    parser.add_argument("--tiny", action="store_true", help="a small network, to try the script")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
