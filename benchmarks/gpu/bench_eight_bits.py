"""Times UNet steps in eight bits beside the same step in half, and tells their errors.

    python -m benchmarks.gpu.bench_eight_bits                      # SDXL and SD1.5, as the card itself and as an RTX 40
    python -m benchmarks.gpu.bench_eight_bits --sizes sd15-512-b8 --capabilities own --tuning-seconds 60
    python -m benchmarks.gpu.bench_eight_bits --capabilities 8.9 --precisions off,off-ours,int8 --tuning-seconds 40
    python -m benchmarks.gpu.bench_eight_bits --device cpu --tiny --sizes sd15-128-b2 --rounds 1

Weights are random, at the real shapes. All subjects of a size and card are timed in turn, in one process, and each
chooses its kernels anew. `over_half` is the time of half over that of the subject. `off-ours` is half by our kernels
alone, tuned: what a card that is only said to be another has without the real one's instructions, which cuBLAS and
cuDNN use. `over_ours` compares with that. `relative_error` is that of a step
against fp32, and `finite` tells that no step gave NaN. With `--compiled`, diffusers' network runs beside them as
torch.compile makes it: in half, and with `torch._scaled_mm` for its linear layers (fp8, a scale for each token and
output channel). torchao is not used.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bench_unet import TIMESTEP, Bench, compiled
from benchmarks.common import write_result
from benchmarks.gpu.said_card import Capability, capability, said_to_be, without_libraries
from benchmarks.networks.diffusers_unet import as_diffusers_reads, diffusers_unet
from benchmarks.side_by_side import Step, Subject, measure_all
from modules.core.runner import Conditioning
from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast.kernels.choices import CHOICES, ImplementationChoices
from modules.stable_fast.store.cache import CACHE_VARIABLE

SIZES = "sdxl-1024-b2,sd15-1024-b2,sd15-512-b8"
PRECISIONS = "off,fp8,int8"
HALF, OURS = "off", "off-ours"
LARGEST = 448.0  # of e4m3


class EightBits:
    """The subjects of one size on one card."""

    def __init__(self, size: str, said: Capability | None, arguments: argparse.Namespace) -> None:
        model, pixels, rows = size.split("-")
        how = {"model": model, "size": pixels, "batch": int(rows.removeprefix("b"))}
        self.bench = Bench(argparse.Namespace(**vars(arguments) | how))
        self.said, self.arguments = said, arguments
        self.facts: dict[str, dict[str, Any]] = {}

    def ours(self, precision: str) -> Subject:
        def make() -> Step:
            vars(CHOICES).update(vars(ImplementationChoices()))
            tuning = 0.0 if precision == HALF else self.arguments.tuning_seconds
            config = StableFastConfig(
                precision=HALF if precision == OURS else precision,
                tuning_seconds=tuning,
                timed_against_eager=False,
                emulated=not self.bench.x.is_cuda,
                graph_memory_mib=60_000,
            )
            with said_to_be(self.said), without_libraries() if precision == OURS else nullcontext():
                runner = StableFastRunner(self.bench.unet, config)
                runner.prepare(Conditioning(texts=(self.bench.text,)), [TIMESTEP])
                runner.step(self.bench.x, TIMESTEP)  # looks for scales
                y = runner.step(self.bench.x, TIMESTEP)  # captured
            eight = {f"{op} {key}": name for (op, key), name in CHOICES.used.items() if "eight" in op or "quant" in op}
            self.facts[precision] = {
                "status": runner.report.status_line(),
                "captures": runner.report.counters.captures,
                "finite": bool(y.isfinite().all()),
                "weights_mib": runner.report.weights_mib,
                "choices": eight,
            }
            vars(CHOICES).update(vars(ImplementationChoices()))
            return lambda x: runner.step(x, TIMESTEP)

        return Subject(precision, make)

    def diffusers(self, name: str, change: Callable[[nn.Module], None]) -> Subject:
        def make() -> Step:
            torch.compiler.reset()
            unet: Any = diffusers_unet(self.bench.unet)
            unet.to(memory_format=torch.channels_last)
            change(unet)
            call, rows = compiled(unet, "reduce-overhead"), self.bench.rows
            times = torch.full((rows,), TIMESTEP, device=self.bench.device)
            text = as_diffusers_reads(self.bench.text)

            def step(x: Tensor) -> Tensor:
                both = x.to(self.bench.dtype).repeat(rows // x.shape[0], 1, 1, 1)
                both = both.contiguous(memory_format=torch.channels_last)
                return call(both, times, **text, return_dict=False)[0].clone()

            return step

        return Subject(name, make)


class ScaledLinear(nn.Module):
    """A linear layer in fp8 by `torch._scaled_mm`, as torchao makes it: scales by token and by output channel."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.scale = (weight.abs().amax(1, keepdim=True) / LARGEST).t().contiguous()
        self.weight = (weight / self.scale.t()).to(torch.float8_e4m3fn).t()
        self.bias: Tensor | None = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / LARGEST
        q = (rows / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        product: Any = getattr(torch, "_scaled_mm")  # noqa: B009 - private, and what torchao calls
        y = product(q, self.weight, scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16)
        y = y.to(x.dtype).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def scale_linears(unet: nn.Module) -> None:
    """Gives the linear layers inside the transformers' blocks eight bits."""
    for name, part in list(unet.named_modules()):
        for child, layer in list(part.named_children()):
            if isinstance(layer, nn.Linear) and "transformer_blocks" in f"{name}.{child}":
                setattr(part, child, ScaledLinear(layer))


@torch.inference_mode()
def time_size(size: str, said: Capability | None, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    began = time.monotonic()
    eight = EightBits(size, said, arguments)
    subjects = [eight.ours(precision) for precision in arguments.precisions.split(",")]
    if arguments.compiled and said is None:
        subjects.append(eight.diffusers("diffusers-compile", lambda unet: None))
        subjects.append(eight.diffusers("diffusers-compile-scaled-mm", scale_linears))
    how = {"rounds": arguments.rounds, "steps": arguments.steps, "budget": arguments.budget}
    rows = measure_all(subjects, eight.bench.x, eight.bench.reference(), **how)
    measured = {row["label"]: row["ms"] for row in rows if "ms" in row}
    half = measured.get(HALF)
    for row in rows:
        row |= {"size": size, "card": ".".join(map(str, said)) if said else "own", **eight.facts.get(row["label"], {})}
        if "ms" in row and half:
            row["over_half"] = half / row["ms"]
            told = f"{row['ms']:8.3f} ms  {row['over_half']:.2f} x half  error {row.get('relative_error', 0):.1e}"
            if OURS in measured:
                row["over_ours"] = measured[OURS] / row["ms"]
                told += f"  {row['over_ours']:.2f} x half by our kernels"
            print(f"  {size} {row['card']} {row['label']:28} {told}", flush=True)
    print(f"{size}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16 on a GPU")
    parser.add_argument("--sizes", default=SIZES, help="model-pixels-bROWS, comma-separated")
    parser.add_argument(
        "--capabilities", default="own,8.9", help="own: the card as it is; 8.9: it passes for an RTX 40"
    )
    parser.add_argument("--precisions", default=PRECISIONS, help="comma-separated; off is half")
    parser.add_argument("--tuning-seconds", type=float, default=0.0, help="for the kernels of eight bits")
    parser.add_argument("--tables", type=Path, help="a folder for the tables that tuning makes, see merge_tables.py")
    parser.add_argument("--compiled", action="store_true", help="also diffusers' network through torch.compile")
    parser.add_argument("--tiny", action="store_true", help="small networks of the models' form, to try the script")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="evaluations per round")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds for warming up the subjects of a size")
    parser.add_argument("--name", default="eight-bits", help="of the file of results")
    arguments = parser.parse_args()
    if arguments.tables:
        arguments.tables.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder  # scales and choices of other networks are ignored
        for word in arguments.capabilities.split(","):
            for size in arguments.sizes.split(","):
                rows += time_size(size, None if word == "own" else capability(word), arguments)
                told = {
                    name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
                }
                write_result(arguments.name, rows, arguments=told)  # a later size may end in a fault
                if arguments.tables:
                    for table in Path(folder).glob("tuned-*.json"):
                        shutil.copy(table, arguments.tables)
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
