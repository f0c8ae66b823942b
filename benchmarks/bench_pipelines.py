"""Times networks of diffusers and transformers through `compile_pipeline`, side by side with others in one process.

    python -m benchmarks.bench_pipelines sd15           # 512 px, CFG: beside the product's own step
    python -m benchmarks.bench_pipelines sdxl           # 1024 px, CFG: beside the product's own step
    python -m benchmarks.bench_pipelines svd            # 14 frames of 576x1024, CFG: beside torch.compile
    python -m benchmarks.bench_pipelines flux           # 4 double and 8 single blocks, 4096 + 512 tokens
    python -m benchmarks.bench_pipelines clip           # the text encoder of SD1.5, one prompt
    python -m benchmarks.bench_pipelines t5 --layers 6  # the encoder of T5-XXL, 512 tokens
    python -m benchmarks.bench_pipelines svd --tiny --device cpu --rounds 1
    python -m benchmarks.bench_pipelines sdxl --subjects pipeline,diffusers-compile   # first calls, both cold

Weights are random at the real shapes, in fp16 on a GPU. Each subject has a copy of them. Caches on disk are empty at
the start, so first calls are cold. A round of `pipeline` is one picture, as a loop of steps calls it. The rows are
written as soon as there is something new in them. The row `check` says what the first step of a picture pays for the
look at changes, and how long the look itself takes there. The row `look` says what that consists of: the CPU's time for
each piece by itself, the launches, the GPU's time for reading all weights, and how long the CPU would wait for it.
Hooks are looked for only if the look sees other objects. `module` is `compile_module`, which does not look. Each
subject is compared with fp32 eager. PyTorch's profiler counts the kernels of one step. The row `first_call` says how
the first call of `pipeline` compares with that of `torch.compile` in its default mode, and which others ran in the same
process, since those may have warmed up kernels that both use.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from benchmarks import bench_unet
from benchmarks.common import keep_result, write_result
from benchmarks.networks.diffusers_unet import SIZE_WIDTH, SIZES, diffusers_unet
from benchmarks.networks.looks import check_row, kernels, look_row
from benchmarks.networks.of_pipelines import (
    WITHOUT_PRODUCT,
    Workload,
    recorded,
    stable_diffusion,
    stable_diffusion_xl,
)
from benchmarks.side_by_side import Rows, Step, Subject, measure_all
from modules.stable_fast import compile_module, compile_pipeline
from modules.stable_fast.pipelines.compile import CompiledPipeline

CACHES = ("LIGHTDIFFUSION_CACHE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
MODES = {"compile": "default", "reduce-overhead": "reduce-overhead"}


class Bench:
    """All subjects of a workload."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.network = copy.deepcopy(workload.network)  # the pipeline's own
        self.pipeline: CompiledPipeline = compile_pipeline(workload.pipe(self.network))
        self.library = type(workload.network).__module__.partition(".")[0]

    def subjects(self) -> dict[str, Callable[[], Step]]:
        makers: dict[str, Callable[[], Step]] = {}
        if self.workload.product:
            makers["product"] = self.workload.product
        makers["pipeline"] = lambda: lambda x: self.workload.call(self.network, x)
        if self.workload.dims:
            makers["module"] = self.module
        makers[self.library] = self.eager
        for name, mode in MODES.items():
            makers[f"{self.library}-{name}"] = lambda mode=mode: self.torch_compiled(mode)
        return makers

    def eager(self) -> Step:
        network = copy.deepcopy(self.workload.network)
        return lambda x: self.workload.call(network, x)

    def torch_compiled(self, mode: str) -> Step:
        network = copy.deepcopy(self.workload.network)
        for weight in network.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        fast = bench_unet.compiled(network, mode, fullgraph=False)

        def step(x: Tensor) -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return self.workload.call(fast, x).clone()

        return step

    def module(self) -> Step:
        network = copy.deepcopy(self.workload.network)
        self.workload.call(network, self.workload.x)  # encoders of transformers set themselves up at the first call
        example = {**self.workload.arguments, self.workload.moving: self.workload.x}
        fast = compile_module(network, example, dims=self.workload.dims)
        return lambda x: self.workload.call(fast, x)

    def reference(self) -> Tensor:
        network = copy.deepcopy(self.workload.network).float()
        exact: Any = pytree.tree_map(as_float, self.workload.arguments)
        return replace(self.workload, arguments=exact).call(network, as_float(self.workload.x))


def as_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def first_call_row(rows: Rows, library: str) -> dict[str, Any] | None:
    """The first calls of `pipeline` and of torch.compile in seconds, if both were made, and their ratio."""
    seconds = {row["label"]: row["first_call_seconds"] for row in rows if "first_call_seconds" in row}
    ours, theirs = seconds.get("pipeline"), seconds.get(f"{library}-compile")
    if ours is None or theirs is None:
        return None
    before = [label for label in seconds if label not in ("pipeline", f"{library}-compile")]
    print(f"{'first call':28} {ours:.2f} s, that of torch.compile {theirs:.2f} s: {ours / theirs:.2f} of it")
    return {"label": "first_call", "seconds": ours, "compile_seconds": theirs, "ratio": ours / theirs, "others": before}


def kernels_of(subject: Subject, x: Tensor) -> int:
    """Kernels of one of its steps, but not the first of a picture."""
    step = subject.step
    assert step is not None
    with (subject.picture or nullcontext)():
        step(x)
        return kernels(step, x)


def of_product(model: str, size: int, arguments: argparse.Namespace) -> Workload:
    """diffusers' UNet in a real pipeline, with the weights of our own network, which runs the product's step."""
    fields = {"model": model, "size": 64 if arguments.tiny else size, "batch": 2, "tiny": arguments.tiny, "dtype": None}
    bench = bench_unet.Bench(argparse.Namespace(device=arguments.device, tuning_seconds=0.0, **fields))
    network: Any = diffusers_unet(bench.unet)
    x = bench.x.to(bench.dtype)
    network.register_to_config(sample_size=x.shape[-1])
    negative, prompt = bench.context.chunk(2)
    call: dict[str, Any] = {"prompt_embeds": prompt, "negative_prompt_embeds": negative, "latents": x}
    if bench.text.vector is not None:
        pooled = bench.text.vector[:, : -len(SIZES) * SIZE_WIDTH].chunk(2)
        call |= {"negative_pooled_prompt_embeds": pooled[0], "pooled_prompt_embeds": pooled[1]}
        call |= {"original_size": SIZES[:2], "target_size": SIZES[4:]}
    pipe, rounds, steps = {"sd15": (stable_diffusion, 10, 20), "sdxl": (stable_diffusion_xl, 6, 8)}[model]
    seen = recorded(pipe(network), network, call)
    seen["timestep"] = torch.full_like(seen["timestep"], bench_unet.TIMESTEP)
    return Workload(
        network=network, x=x, moving="sample", arguments=seen, rounds=rounds, steps=steps, pipe=pipe, halves=2,
        product=bench.ours("full"),
    )  # fmt: skip


WORKLOADS: Mapping[str, Callable[[argparse.Namespace], Workload]] = {
    "sd15": lambda arguments: of_product("sd15", 512, arguments),
    "sdxl": lambda arguments: of_product("sdxl", 1024, arguments),
    **WITHOUT_PRODUCT,
}


@torch.no_grad()  # as pipelines call their networks
def run(arguments: argparse.Namespace) -> None:
    workload = WORKLOADS[arguments.workload](arguments)
    bench, x = Bench(workload), workload.x
    every = bench.subjects()
    names = arguments.subjects.split(",") if arguments.subjects else every
    pictures = {"pipeline": bench.pipeline.picture}
    subjects = {name: Subject(name, every[name], pictures.get(name)) for name in names}
    how = {"rounds": arguments.rounds or workload.rounds, "steps": arguments.steps or workload.steps}
    result = f"pipelines-{arguments.workload}" + "-tiny" * arguments.tiny

    def keep(rows: Rows) -> None:
        parts = {name: part.to_dict() for name, part in bench.pipeline.report.parts.items()}
        keep_result(result, rows, arguments=vars(arguments), networks=parts)

    rows = measure_all(list(subjects.values()), x, bench.reference(), budget=arguments.budget, keep=keep, **how)
    keep(rows)
    for row in rows:
        subject = subjects[row["label"]]
        if subject.step is not None and x.is_cuda and "error" not in row:
            row["kernels"] = kernels_of(subject, x)
    keep(rows)
    if "pipeline" in subjects and subjects["pipeline"].step is not None:
        rows.append(check_row(bench.pipeline, subjects["pipeline"].step, x))
        keep(rows)
    rows.append(look_row(bench.network))
    first = first_call_row(rows, bench.library)
    if first is not None:
        rows.append(first)
    report = bench.pipeline.report
    print(report.to_text())
    parts = {name: part.to_dict() for name, part in report.parts.items()}
    write_result(result, rows, arguments=vars(arguments), networks=parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=tuple(WORKLOADS), nargs="?", default="sd15")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks of the same form, to try the script")
    parser.add_argument("--layers", type=int, default=24, help="of t5")
    parser.add_argument("--rounds", type=int, help="default: by workload")
    parser.add_argument("--steps", type=int, help="calls per round; default: by workload")
    parser.add_argument("--subjects", help="comma-separated; default: all")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds after which no subject is prepared")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.update({name: str(Path(folder) / name) for name in CACHES})
        run(arguments)


if __name__ == "__main__":
    main()
