"""Times products and norms in half precision against fp8 and int8, by candidate, at the shapes of SDXL and SD1.5.

    python -m benchmarks.gpu.bench_eight_bit_products --out FILE [--seconds 60] [--only linear] [--capability 8.9]

Each row is written to FILE (JSON lines) as soon as it is measured: microseconds by candidate, the best of half
precision over the best of each kind, and the error of the sums against fp32 products of the same numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from benchmarks.gpu.probe_gpu import gpu_details
from benchmarks.gpu.said_card import capability, said_to_be
from benchmarks.gpu.sd15_shapes import random_image, random_rows
from modules.stable_fast.kernels.candidates import Implementations, is_position
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey
from modules.stable_fast.kernels.eight_bits.quantize_rows import quantize_channels_reference, quantize_rows_reference
from modules.stable_fast.kernels.eight_bits.quantize_tensor import quantize_tensor_reference
from modules.stable_fast.kernels.launch import compile_ahead
from modules.stable_fast.kernels.refusals import REFUSALS
from modules.stable_fast.kernels.timing import time_on_gpu

OPS = torch.ops.lightdiffusion
HALF = torch.float16
KINDS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
# Tokens and channels: SD1.5 at 1024 px b2 or 512 px b8 (all but the second), SDXL at 1024 px b2 (the second and third).
LEVELS = ((32768, 320), (8192, 640), (2048, 1280), (512, 1280))
# Batch, channels in and out, side: SDXL 1024 px b2 and SD1.5 1024 px b2 share sizes, then SD1.5 512 px b8.
CONVS = (
    (2, 320, 320, 128), (2, 640, 640, 64), (2, 1280, 1280, 32), (2, 2560, 1280, 32), (2, 1920, 640, 64),
    (2, 960, 320, 128), (2, 1280, 1280, 16), (8, 320, 320, 64), (8, 640, 640, 32), (8, 1280, 1280, 16),
    (8, 1280, 1280, 8), (8, 2560, 1280, 8),
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A call in half precision, and the same one in 8 bits for each kind."""

    label: str
    half: Callable[[], Any]
    eight: dict[str, Callable[[], Any]]


def linears() -> Iterator[Subject]:
    for rows, channels in LEVELS:
        for name, k, n, added in (("qkv", 1, 3, False), ("out+res", 1, 1, True), ("ff_out+res", 4, 1, True)):
            yield linear(f"{name} {rows}x{k * channels}->{n * channels}", rows, k * channels, n * channels, added)
        yield geglu(f"geglu {rows}x{channels}->{4 * channels}", rows, channels)


def linear(label: str, rows: int, k: int, n: int, added: bool) -> Subject:
    x, weight = random_rows(1, rows, k), random_rows(n, k, scale=k**-0.5)
    bias, residual = (random_rows(n), random_rows(1, rows, n)) if added else (None, None)
    eight = {}
    for name, kind in KINDS.items():
        args = (*quantize_rows_reference(x, kind), *quantize_channels_reference(weight, kind))
        args = (*args, bias, residual, "none", HALF)
        eight[name] = lambda args=args: OPS.linear_eight(*args)
    return Subject(label, lambda: OPS.linear_epilogue(x, weight, bias, residual, "none"), eight)


def geglu(label: str, rows: int, channels: int) -> Subject:
    x, weight, bias = random_rows(1, rows, channels), random_rows(8 * channels, channels, scale=0.03), None
    one, eight = torch.full((1,), 0.05, device="cuda"), {}
    for name, kind in KINDS.items():
        args = (*quantize_rows_reference(x, kind), *quantize_channels_reference(weight, kind), bias)
        eight[name] = lambda args=args: OPS.linear_geglu_eight(*args, HALF)
        eight[f"{name} to 8 bits"] = lambda args=args, kind=kind: OPS.linear_geglu_eight_quantized(*args, one, kind)
    return Subject(label, lambda: OPS.linear_geglu(x, weight, bias), eight)


def convolutions() -> Iterator[Subject]:
    for batch, cin, cout, side in CONVS:
        x, weight = random_image(batch, cin, side, side), random_image(cout, cin, 3, 3, scale=(9 * cin) ** -0.5)
        bias, vector, eight = random_rows(cout), random_rows(1, cout), {}
        for name, kind in KINDS.items():
            scale = OPS.amax_tensor(x) / (127 if kind == torch.int8 else 448)
            q = quantize_tensor_reference(x, scale, kind)
            args = (q, scale, *quantize_channels_reference(weight, kind), bias, vector)
            eight[name] = lambda args=args: OPS.conv2d_eight(*args, None, 1, 1, "none", HALF)
        half = (x, weight, bias, vector, None, 1, 1, "none")
        yield Subject(f"conv {batch}x{cin}->{cout} @{side}", lambda half=half: OPS.conv2d_epilogue(*half), eight)


def norms() -> Iterator[Subject]:
    for rows, channels in LEVELS[:3]:
        x, weight, bias = random_rows(1, rows, channels), random_rows(channels), random_rows(channels)
        eight = {name: lambda kind=kind, a=(x, weight, bias): OPS.layer_norm_quantized(*a, 1e-5, kind)
                 for name, kind in KINDS.items()}  # fmt: skip
        yield Subject(f"LayerNorm {rows}x{channels}", lambda a=(x, weight, bias): OPS.layer_norm(*a, 1e-5), eight)
        wide = random_rows(1, rows, 4 * channels)
        alone = {name: lambda kind=kind, wide=wide: OPS.quantize_rows(wide, kind) for name, kind in KINDS.items()}
        yield Subject(f"quantize_rows {rows}x{4 * channels}, against a copy", wide.clone, alone)
    one = torch.full((1,), 0.05, device="cuda")
    for channels, side in ((320, 128), (640, 64), (1280, 32)):
        image, weight, bias = random_image(2, channels, side, side), random_rows(channels), random_rows(channels)
        tail = (weight, bias, 32, 1e-5, True)
        eight = {name: lambda kind=kind, a=(image, *tail): OPS.group_norm_silu_quantized(*a, one, kind)
                 for name, kind in KINDS.items()}  # fmt: skip
        yield Subject(f"GroupNorm 2x{channels} @{side}", lambda a=(image, *tail): OPS.group_norm_silu(*a), eight)


class _Timer:
    """Times every candidate of the one choice that a call makes, in the tuner's place."""

    def __init__(self) -> None:
        self.us: dict[str, float] = {}

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        for name in worth_timing(implementations):
            with suppress(*REFUSALS):
                self.us[name] = round(1000 * time_on_gpu(lambda name=name: implementations[name](*args), args[0]), 2)
        return min(self.us, key=self.us.__getitem__, default=default)


def worth_timing(implementations: Implementations) -> list[str]:
    return [name for name in implementations if not is_position(name)]


def launch_all(op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]) -> str:
    """Launches what has to be compiled."""
    for name in worth_timing(implementations):
        if name.startswith(("tma", "triton", "one", "two")):
            with suppress(*REFUSALS):
                implementations[name](*args)
    return default


def timed(call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    timer = _Timer()
    CHOICES.chosen, CHOICES.tuner = {}, timer
    try:
        result = call()
        if not timer.us:  # an operation of PyTorch alone
            timer.us["only"] = round(1000 * time_on_gpu(call, None), 2)
    finally:
        CHOICES.tuner = None
    return dict(sorted(timer.us.items(), key=lambda item: item[1])), result


def error(result: Any, expected: Any) -> float | None:
    """Root mean square of the difference, relative to that of the expected numbers."""
    if not isinstance(result, Tensor) or result.dtype != expected.dtype:
        return None
    return float((result.float() - expected.float()).square().mean().sqrt() / expected.float().square().mean().sqrt())


def row_of(subject: Subject) -> dict[str, Any]:
    us, expected = timed(subject.half)
    row: dict[str, Any] = {"label": subject.label, "half": us}
    for name, call in subject.eight.items():
        found, result = timed(call)
        row[name] = found
        if found:
            row[f"{name} times faster"] = round(min(us.values()) / min(found.values()), 3)
            row[f"{name} error"] = error(result, expected)
    return row


def run(subjects: list[Subject], out: TextIO, seconds: float) -> None:
    started = time.perf_counter()
    CHOICES.chosen, CHOICES.tuner = {}, launch_all
    calls = [call for subject in subjects for call in (subject.half, *subject.eight.values())]
    try:
        compile_ahead(lambda: [call() for call in calls], torch.device("cuda"))
    finally:
        CHOICES.tuner = None
    write(out, {"machine": gpu_details(), "compiled in seconds": round(time.perf_counter() - started, 1)})
    for subject in subjects:
        if time.perf_counter() - started > seconds:
            write(out, {"cut short before": subject.label})
            return
        write(out, row_of(subject))


def write(out: TextIO, row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)
    out.write(json.dumps(row) + "\n")
    out.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="no row begins after this many")
    parser.add_argument("--only", default="", help="only rows whose label contains this")
    parser.add_argument("--capability", type=capability, help="the card passes for one of this capability, such as 8.9")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(), said_to_be(arguments.capability), arguments.out.open("a") as out:
        subjects = [s for part in (linears, convolutions, norms) for s in part() if arguments.only in s.label]
        run(subjects, out, arguments.seconds)


if __name__ == "__main__":
    main()
