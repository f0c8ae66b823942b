"""Times VAE decoding, or a UNet step with a ControlNet, side by side in one process: ours and diffusers'.

    python -m benchmarks.bench_networks vae --size 512
    python -m benchmarks.bench_networks controlnet --size 512 --batch 2 --subjects eager,full,diffusers

Weights are random at the SD1.5 shapes, and inputs are fresh. Times are measured as in bench_unet.py. diffusers' VAE
and ControlNet have different random weights, so only their time is compared.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_unet import TIMESTEP, Bench, compiled
from benchmarks.common import write_result
from benchmarks.networks.diffusers_unet import diffusers_unet
from benchmarks.side_by_side import Step, Subject, measure_all
from modules.controlnet.apply import AppliedControl, ControlStack
from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.generation.networks import CONTROL_BINDINGS, CONTROL_DIMS, FastControlNet, VaeDecode
from modules.models.configs import VAEConfig
from modules.models.controlnet import ControlNet
from modules.models.vae import AutoencoderKL
from modules.stable_fast import CompiledModule, StableFastConfig, StableFastRunner

DECODER_DIMS = {"latent": ("batch", None, "height", "width")}
MODES = {
    "diffusers-compile": "default",
    "diffusers-reduce-overhead": "reduce-overhead",
    "diffusers-max-autotune": "max-autotune",
}
LEVELS = ("graph", "fused", "full")


class VAEBench:
    """[B, 4, size/8, size/8] -> [B, 3, size, size]."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        with torch.device(device):
            self.decoder = VaeDecode(AutoencoderKL(VAEConfig())).to(dtype).eval().requires_grad_(False)
        if device.type == "cuda":  # the loader's layout on a GPU
            self.decoder.to(memory_format=torch.channels_last)
        side = arguments.size // 8
        self.x = torch.randn(arguments.batch, 4, side, side, device=device, dtype=dtype)

    def reference(self) -> Tensor:
        return copy.deepcopy(self.decoder).float()(self.x.float())

    def subjects(self) -> dict[str, Callable[[], Step]]:
        return {
            "eager": lambda: self.decoder,
            **{level: lambda level=level: self.ours(level) for level in LEVELS},
            "diffusers": lambda: self.diffusers(torch.contiguous_format, None),
            "diffusers-channels-last": lambda: self.diffusers(torch.channels_last, None),
            **{name: lambda mode=mode: self.diffusers(torch.channels_last, mode) for name, mode in MODES.items()},
        }

    def ours(self, level: str) -> Step:
        return CompiledModule(self.decoder, dims=DECODER_DIMS, level=level)

    def diffusers(self, layout: torch.memory_format, mode: str | None) -> Step:
        from diffusers import AutoencoderKL as DiffusersVAE

        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        with torch.device(self.x.device):
            vae = DiffusersVAE(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **blocks)
        vae = vae.to(self.x.dtype, memory_format=layout).eval().requires_grad_(False)
        decode: Any = compiled(vae.decode, mode) if mode else vae.decode
        return lambda x: decode(x.contiguous(memory_format=layout), return_dict=False)[0].clone()


class ControlNetBench:
    """Runs a UNet step with the residuals of one ControlNet."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
        self.unet = Bench(argparse.Namespace(**vars(arguments) | {"model": "sd15", "dtype": str(dtype)[6:]}))
        self.x = self.unet.x
        with torch.device(device):
            self.network = ControlNet(self.unet.config).to(dtype).eval().requires_grad_(False)
        if device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        self.hint = torch.rand(1, 3, arguments.size, arguments.size, device=device, dtype=dtype)

    def inputs(self, network: Any, context: Tensor) -> Conditioning:
        control = AppliedControl(network=network, hint=self.hint, strength=1.0)
        return Conditioning(texts=(TextInputs(context),), control=ControlStack([control], self.x.shape[0]))

    def reference(self) -> Tensor:
        runner = EagerRunner(copy.deepcopy(self.unet.unet).float())
        runner.prepare(self.inputs(copy.deepcopy(self.network).float(), self.unet.context.float()), [TIMESTEP])
        return runner.step(self.x, TIMESTEP).float()

    def ours(self, level: str) -> Step:
        runner: Any = EagerRunner(self.unet.unet)
        network: Any = self.network
        if level != "off":
            runner = StableFastRunner(self.unet.unet, StableFastConfig(level=level, timed_against_eager=False))
            network = FastControlNet(
                CompiledModule(self.network, bindings=CONTROL_BINDINGS, dims=CONTROL_DIMS, level=level)
            )
        runner.prepare(self.inputs(network, self.unet.context), [TIMESTEP])
        return lambda x: runner.step(x, TIMESTEP)

    def subjects(self) -> dict[str, Callable[[], Step]]:
        return {
            "eager": lambda: self.ours("off"),
            **{level: lambda level=level: self.ours(level) for level in LEVELS},
            "diffusers": lambda: self.diffusers(torch.contiguous_format, None),
            "diffusers-channels-last": lambda: self.diffusers(torch.channels_last, None),
            **{name: lambda mode=mode: self.diffusers(torch.channels_last, mode) for name, mode in MODES.items()},
        }

    def diffusers(self, layout: torch.memory_format, mode: str | None) -> Step:
        from diffusers import ControlNetModel

        unet: Any = diffusers_unet(self.unet.unet)
        unet.to(memory_format=layout)
        control: Any = ControlNetModel.from_unet(unet)
        control.to(self.x.device, self.unet.dtype, memory_format=layout)
        control.eval().requires_grad_(False)
        if mode:
            unet, control = (compiled(network, mode) for network in (unet, control))
        rows, context = self.unet.rows, self.unet.context
        times = torch.full((rows,), TIMESTEP, device=self.x.device)
        hint = self.hint.expand(rows, -1, -1, -1)

        def step(x: Tensor) -> Tensor:
            x = x.to(self.unet.dtype).repeat(rows // x.shape[0], 1, 1, 1).contiguous(memory_format=layout)
            torch.compiler.cudagraph_mark_step_begin()
            down, mid = control(x, times, context, hint, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            return unet(x, times, context, return_dict=False, **residuals)[0].clone()

        return step


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    bench = {"vae": VAEBench, "controlnet": ControlNetBench}[arguments.network](arguments, device, dtype)
    every = bench.subjects()
    chosen = [Subject(name, every[name]) for name in arguments.subjects.split(",")]
    rows = measure_all(
        chosen, bench.x, bench.reference(), rounds=arguments.rounds, steps=arguments.steps, budget=arguments.budget,
        unjudged=frozenset(name for name in every if name.startswith("diffusers")),
    )  # fmt: skip
    write_result(f"{arguments.network}-sd15-{arguments.size}-b{arguments.batch}", rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("vae", "controlnet"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=512, help="pixels along one side")
    parser.add_argument("--batch", type=int, default=1, help="pictures for vae; rows of the UNet for controlnet")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--subjects", default="eager,full,diffusers,diffusers-channels-last")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds after which no subject is prepared")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
