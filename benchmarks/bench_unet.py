"""Times one UNet step side by side in one process: ours eager and at each level, diffusers eager and compiled.

    python -m benchmarks.bench_unet --device cuda                       # SD1.5 at 512, CFG batch 2, every subject
    python -m benchmarks.bench_unet --model sdxl --size 1024    # SDXL, CFG batch 2
    python -m benchmarks.bench_unet --model sdxl --size 1024 --subjects full,full-fp8,full-fp8-tuned
    python -m benchmarks.bench_unet --subjects full,diffusers-sfast,diffusers-sfast-fp32-sums --suffix namesake
    python -m benchmarks.bench_unet --device cpu --size 256 --subjects eager,fused,diffusers
    python -m benchmarks.bench_unet --device cpu --size 128 --model sdxl --tiny --rounds 1
    python -m benchmarks.bench_unet --list

Weights are random at the real shapes and the same in every subject; inputs are fresh. Subjects are timed in turn,
round after round, and the median is reported: GPU time by CUDA events, host time without waiting for the GPU. Each
subject's output is compared with fp32 eager. If a subject fails, its error goes into the result. The subjects that need
the registry's `stable-fast-pruna` are left out, with a line that says so, where that is not installed.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import write_result
from benchmarks.networks.diffusers_unet import as_diffusers_reads, diffusers_unet, random_text
from benchmarks.networks.namesake import NAMESAKES, compiled_by_namesake, why_absent
from benchmarks.side_by_side import Step, Subject, measure_all
from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.models.configs import SD15_UNET, SD21_UNET, SDXL_UNET, UNetConfig
from modules.models.unet import UNet
from modules.stable_fast import StableFastConfig, StableFastRunner, adjoin_projections

MODELS: dict[str, UNetConfig] = {"sd15": SD15_UNET, "sd21": SD21_UNET, "sdxl": SDXL_UNET}
TIMESTEP = 500.0
# Only if they are named: on the GPUs that we have, sums in fp16 are for their error and not their time.
PRECISIONS = ("fp16-accumulate", "fp8", "int8", "fp8-weights", "int8-weights")


def config_of(model: str, *, tiny: bool = False) -> UNetConfig:
    """The UNet's config; with `tiny`, a small one of the same form, to try a script."""
    config = MODELS[model]
    if not tiny:
        return config
    return replace(
        config,
        channels=tuple(32 * width // config.channels[0] for width in config.channels),
        depths=tuple(min(depth, 2) for depth in config.depths),
        middle_depth=min(config.middle_depth or 0, 2) or None,
        context_dim=64,
        vector_dim=config.vector_dim and 1600,
        heads=config.heads and 2,
        head_dim=config.head_dim and 32,
        groups=8,
    )


def is_extra(subject: str) -> bool:
    """Whether this subject is timed only if it is named."""
    return subject.removeprefix("full-").removesuffix("-tuned") in PRECISIONS


def sides(size: int | str) -> tuple[int, int]:
    """Width and height of a size such as 512 or "640x512"."""
    width, _, height = str(size).partition("x")
    return int(width), int(height or width)


def compiled(function: Any, mode: str, *, fullgraph: bool = True) -> Any:
    """Calls torch.compile after starting its worker processes, so that max-autotune compiles candidates in parallel.

    torch 2.11's workers use PyTorch's ptxas, but the searching process uses Triton's. So the searching process finds
    none of the workers' kernels in the cache, and recompiles them one by one. Here the searching process uses PyTorch's
    ptxas too, which compiles the final kernels either way.
    """
    from torch._inductor.async_compile import AsyncCompile
    from triton.backends.nvidia.compiler import get_ptxas_version

    ptxas = Path(torch.__file__).parent / "bin" / "ptxas"
    if ptxas.exists():
        os.environ["TRITON_PTXAS_PATH"] = str(ptxas)
        get_ptxas_version.cache_clear()
    AsyncCompile.wait_pool_ready()
    return torch.compile(function, mode=mode, fullgraph=fullgraph)


class Bench:
    """Holds the shared weights and inputs of all subjects."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        self.dtype = getattr(torch, arguments.dtype or ("float16" if self.device.type == "cuda" else "float32"))
        torch.manual_seed(0)
        self.unet = self.network()
        self.config = self.unet.config
        if self.device.type == "cuda":  # the layout of weights on a GPU, for Stable-Fast
            self.unet.to(memory_format=torch.channels_last)
            adjoin_projections(self.unet)
        pictures, rows = max(1, arguments.batch // 2), arguments.batch
        width, height = sides(arguments.size)
        self.x = torch.randn(pictures, 4, height // 8, width // 8, device=self.device)
        self.text = random_text(self.config, rows, self.device, self.dtype)
        self.rows = rows

    def network(self) -> UNet:
        config = config_of(self.arguments.model, tiny=getattr(self.arguments, "tiny", False))
        with torch.device(self.device):
            return UNet(config).to(self.dtype).eval().requires_grad_(False)

    @property
    def context(self) -> Tensor:
        return self.text.context

    def ours(self, level: str, *, tuning: float = 0.0, precision: str = "off") -> Callable[[], Step]:
        def make() -> Step:
            how: dict[str, Any] = {"tuning_seconds": tuning, "precision": precision, "timed_against_eager": False}
            config = StableFastConfig(level=level, **how)
            runner = EagerRunner(self.unet) if level == "off" else StableFastRunner(self.unet, config)
            runner.prepare(Conditioning(texts=(self.text,)), [TIMESTEP])
            return lambda x: runner.step(x, TIMESTEP)

        return make

    def diffusers(self, *, channels_last: bool, mode: str | None = None, regional: bool = False) -> Callable[[], Step]:
        def make() -> Step:
            unet: Any = diffusers_unet(self.unet)
            if channels_last:
                unet = unet.to(memory_format=torch.channels_last)
            if regional:
                unet.fuse_qkv_projections()
                unet.compile_repeated_blocks(fullgraph=True)
            return self.called(compiled(unet, mode) if mode else unet, channels_last=channels_last)

        return make

    def namesake(self, *, fp32_sums: bool) -> Callable[[], Step]:
        def make() -> Step:
            unet = compiled_by_namesake(diffusers_unet(self.unet), fp32_sums=fp32_sums)
            return self.called(unet, channels_last=True)

        return make

    def called(self, unet: Any, *, channels_last: bool) -> Step:
        """The step of diffusers' UNet, compiled or not."""
        times, text = torch.full((self.rows,), TIMESTEP, device=self.device), as_diffusers_reads(self.text)
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def step(x: Tensor) -> Tensor:
            doubled = x.to(self.dtype).repeat(self.rows // x.shape[0], 1, 1, 1).contiguous(memory_format=layout)
            return unet(doubled, times, **text, return_dict=False)[0].clone()

        return step

    def subjects(self) -> dict[str, Subject]:
        tuning = self.arguments.tuning_seconds
        makers: dict[str, Callable[[], Step]] = {
            "eager": self.ours("off"),
            "graph": self.ours("graph"),
            "fused": self.ours("fused"),
            "full": self.ours("full"),
            "full-tuned": self.ours("full", tuning=tuning),
            **{f"full-{name}": self.ours("full", precision=name) for name in PRECISIONS},
            **{f"full-{name}-tuned": self.ours("full", tuning=tuning, precision=name) for name in PRECISIONS},
            "diffusers": self.diffusers(channels_last=False),
            "diffusers-channels-last": self.diffusers(channels_last=True),
            "diffusers-regional": self.diffusers(channels_last=False, regional=True),
            "diffusers-compile": self.diffusers(channels_last=True, mode="default"),
            "diffusers-reduce-overhead": self.diffusers(channels_last=True, mode="reduce-overhead"),
            "diffusers-max-autotune": self.diffusers(channels_last=True, mode="max-autotune"),
            **{name: self.namesake(fp32_sums=name.endswith("fp32-sums")) for name in NAMESAKES},
        }
        return {name: Subject(name, make) for name, make in makers.items()}

    def reference(self) -> Tensor:
        runner = EagerRunner(copy.deepcopy(self.unet).float())
        vector = self.text.vector
        text = TextInputs(self.context.float(), None if vector is None else vector.float())
        runner.prepare(Conditioning(texts=(text,)), [TIMESTEP])
        return runner.step(self.x, TIMESTEP).float()


def without_absent(names: Sequence[str]) -> list[str]:
    """Leaves out the opponents that are not installed, and says so."""
    wanted = [name for name in names if name in NAMESAKES]
    why = why_absent() if wanted else None
    if why is None:
        return list(names)
    print(f"left out: {', '.join(wanted)}, because {why}", flush=True)
    return [name for name in names if name not in NAMESAKES]


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> None:
    bench = Bench(arguments)
    every = bench.subjects()
    names = arguments.subjects.split(",") if arguments.subjects else [name for name in every if not is_extra(name)]
    names = without_absent(names)
    how = {"rounds": arguments.rounds, "steps": arguments.steps, "budget": arguments.budget}
    rows = measure_all([every[name] for name in names], bench.x, bench.reference(), **how)
    model = f"{arguments.model}-tiny" if arguments.tiny else arguments.model
    name = f"unet-{model}-{arguments.size}-b{arguments.batch}-{str(bench.dtype).removeprefix('torch.')}"
    command = {key: value for key, value in vars(arguments).items() if key != "list"}
    if arguments.suffix:
        name += f"-{arguments.suffix}"
    write_result(name, rows, arguments=command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16 on a GPU")
    parser.add_argument("--model", choices=tuple(MODELS), default="sd15")
    parser.add_argument("--tiny", action="store_true", help="a small network of the model's form, to try the script")
    parser.add_argument("--size", type=int, default=512, help="pixels along one side")
    parser.add_argument(
        "--batch", type=int, default=2, help="rows of the network: twice the pictures, 1 without guidance"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5, help="evaluations per round")
    parser.add_argument("--tuning-seconds", type=float, default=30.0, help="for full-tuned")
    parser.add_argument("--subjects", help="comma-separated; default: all but those with a precision")
    parser.add_argument(
        "--budget", type=float, default=3600.0, help="seconds after which no further subject is prepared"
    )
    parser.add_argument("--suffix", help="suffix of the result's name, to keep a run beside another")
    parser.add_argument("--list", action="store_true", help="print the subjects")
    arguments = parser.parse_args()
    if arguments.list:
        print(
            "\n".join(Bench(argparse.Namespace(**vars(arguments) | {"device": "meta", "dtype": "float32"})).subjects())
        )
        return
    run(arguments)


if __name__ == "__main__":
    main()
