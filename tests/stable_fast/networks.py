"""Shared by the Stable-Fast tests: tiny networks, calls of them, compiled programs, and distances between results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.models.configs import UNetConfig
from modules.stable_fast import StableFastRunner
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.graph.flatten import flatten_inputs
from modules.stable_fast.graph.sizes import Dims
from modules.stable_fast.graph.staging import PROMPT, SCHEDULE, SHARED, STEP, TIME
from modules.stable_fast.passes.base import FusionPass
from modules.stable_fast.report import CompileReport
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.unet_call import BINDINGS
from tests import tiny

UNET_DIMS: Mapping[str, Dims] = {
    "x": ("batch", None, "8*height", "8*width"),
    "timesteps": ("batch",),
    "context": ("batch", "tokens", None),
    "vector": ("batch", None),
}

# SDXL's form: no attention at the first level, several transformer blocks in a row, and a vector.
XL_UNET = replace(tiny.SDXL_UNET, channels=(32, 64, 96), context_dim=64, vector_dim=96)


def rel_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unet_call(
    config: UNetConfig = tiny.SD1_UNET, *, batch: int = 2, height: int = 16, width: int = 16, tokens: int = 77
) -> dict[str, Tensor]:
    call = {
        "x": random(batch, config.in_channels, height, width),
        "timesteps": torch.full((batch,), 500.0),
        "context": random(batch, tokens, config.context_dim, seed=1),
    }
    return call | ({"vector": random(batch, config.vector_dim, seed=2)} if config.vector_dim else {})


def compiled_unet(
    network: nn.Module, call: Mapping[str, Any], passes: Sequence[FusionPass]
) -> tuple[Program, CompileReport]:
    return compile_program(WeightStore(network), call, bindings=BINDINGS, dims=UNET_DIMS, passes=passes)


@torch.no_grad()
def run_program(program: Program, call: Mapping[str, Any]) -> Any:
    """Runs all stages in order, with the call's own number of rows."""
    values: dict[str, Tensor] = flatten_inputs(call)
    sizes = program.measure(values)
    for stage in (PROMPT, TIME, SCHEDULE, SHARED, STEP):
        values |= program.function(stage, sizes)({**program.constants(stage), **values})
    return program.result(values)


def operations(graph: fx.Graph) -> Counter[str]:
    """Counts the calls of each operation, by short name."""
    return Counter(_name(node.target) for node in graph.nodes if node.op == "call_function")


def _name(target: Any) -> str:
    """aten.relu.default -> relu, aten.add.Tensor -> add.Tensor; other namespaces keep theirs."""
    text = str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__
    return text.removeprefix("aten.").removesuffix(".default")


@dataclass
class Pair:
    """A compiled and an eager runner of the same network."""

    compiled: StableFastRunner
    eager: EagerRunner

    @torch.inference_mode()
    def step(self, inputs: Conditioning, x: Tensor, timesteps: Sequence[float] = (900.0, 20.5)) -> float:
        """Returns the largest relative error over a short schedule."""
        errors: list[float] = []
        for runner in (self.compiled, self.eager):
            runner.prepare(inputs, list(timesteps))
        for timestep in timesteps:
            errors.append(rel_error(self.compiled.step(x, timestep), self.eager.step(x, timestep)))
        return max(errors)


def pair_of(network: nn.Module) -> Pair:
    return Pair(StableFastRunner(network), EagerRunner(network))


def inputs_for(
    config: UNetConfig = tiny.SD1_UNET, *, images: int = 1, halves: int = 2, tokens: int = 77, seed: int = 1
) -> Conditioning:
    return Conditioning(texts=(TextInputs(random(images * halves, tokens, config.context_dim, seed=seed)),))


def latent(images: int = 1, height: int = 16, width: int = 16, *, channels: int = 4, seed: int = 0) -> Tensor:
    return random(images, channels, height, width, seed=seed)
