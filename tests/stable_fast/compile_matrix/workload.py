"""The calls of our ops in one step of a UNet, recorded on tensors without data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from modules.core.runner import TextInputs
from modules.models.configs import SD15_UNET, SD21_UNET, SDXL_UNET
from modules.models.unet import UNet
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.graph.flatten import flatten_inputs
from modules.stable_fast.kernels.registry import NAMESPACE
from modules.stable_fast.passes import PASSES
from modules.stable_fast.runtime.execution import Execution
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.unet_call import BINDINGS, UNetCall

# One block of a kind stands for all: their sizes are the same, and the trace is quick.
CONFIGS = {"SD1.5": SD15_UNET, "SD2.1": SD21_UNET, "SDXL": replace(SDXL_UNET, depths=(0, 1, 1), middle_depth=1)}
BATCH = 2  # with and without the prompt


class Workload(NamedTuple):
    model: str
    size: int  # pixels a side
    width: int | None = None  # if the picture is not square


class OpCall(NamedTuple):
    op: str
    args: tuple[Any, ...]


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[OpCall] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == NAMESPACE:
            self.calls.append(OpCall(func._opname, args))
        return func(*args, **(kwargs or {}))


def calls_of_a_transformer(tokens: int, channels: int) -> tuple[OpCall, ...]:
    """The calls of what diffusion transformers and language models have besides products and attention."""
    with torch.device("meta"):
        x, weight = torch.empty(1, tokens, channels).half(), torch.empty(channels).half()
        shift, scale, gate = torch.empty(1, 3 * channels).half().chunk(3, dim=1)
        matrix = torch.empty(channels, channels).half()
        heads, turns = x.view(1, tokens, -1, 128), torch.empty(1, tokens, 1, 128).half()
        up, down = torch.empty(1, tokens, 8 * channels).half().chunk(2, dim=-1)
    return (
        OpCall("rms_norm", (x, weight, 1e-6)),
        OpCall("rms_norm", (heads, weight[:128], 1e-6)),
        OpCall("rotary_embedding", (heads, turns, turns, True)),
        OpCall("rotary_embedding", (heads.transpose(1, 2), turns.transpose(1, 2), turns.transpose(1, 2), False)),
        OpCall("rms_norm_rotary", (heads, weight[:128], None, None, 1e-6, turns, turns, True)),
        OpCall(
            "rms_norm_rotary", (heads[:, 512:], weight[:128], heads[:, :512], weight[:128], 1e-6, turns, turns, True)
        ),
        OpCall("add_rms_norm", (x, x, weight, 1e-6)),
        OpCall("clamp_infinities", (x, 64512.0)),
        OpCall("clamped_rms_norm", (x, weight, 1e-6, 64512.0)),
        OpCall("modulated_layer_norm", (x, scale, shift, 1e-6)),
        OpCall("gated_add", (x, gate, x)),
        OpCall("gated_add", (x, gate, x, 65504.0)),
        OpCall("linear_epilogue", (x, matrix, weight, None, "gelu_tanh")),
        OpCall("gated_activation", (up, down, "silu")),
        OpCall("gated_activation", (up, down, "gelu")),
        OpCall("gated_activation", (up, down, "gelu_tanh")),
    )


def calls_in_eight_bits(kind: torch.dtype) -> tuple[OpCall, ...]:
    """The calls of SDXL's layers of 1280 channels at 1024 px and of SD1.5's of 320, in eight bits."""
    half = torch.float16

    def image(channels: int, side: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(2, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)

    def layers(rows: int, c: int, side: int) -> Iterator[OpCall]:
        vector, one, columns = torch.empty(c).half(), torch.empty(1), torch.empty(8 * c)
        x = torch.empty(2, rows // 2, c).half()
        q, wide, scales = x.to(kind), torch.empty(2, rows // 2, 4 * c).to(kind), torch.empty(2, rows // 2, 1)
        weight = torch.empty(8 * c, c).to(kind)
        norm = (image(c, side, half), vector, vector, 32, 1e-5, True)
        yield OpCall("quantize_rows", (x, kind))
        yield OpCall("quantize_channels", (torch.empty(c, 9 * c).half(), kind))
        yield OpCall("dequantize_channels", (weight, columns, half))
        yield OpCall("quantize_tensor", (norm[0], one, kind))
        yield OpCall("layer_norm_quantized", (x, vector, vector, 1e-5, kind))
        yield OpCall("add_layer_norm_quantized", (x, x, vector, vector, 1e-5, kind))
        yield OpCall("group_norm_silu_quantized", (*norm, one, kind))
        yield OpCall("linear_eight", (q, scales, weight[: 3 * c], columns[: 3 * c], None, None, "none", half))
        yield OpCall("linear_eight", (q, scales, weight[:c], columns[:c], vector, x, "none", half))
        down = (torch.empty(c, 4 * c).to(kind), columns[:c])
        yield OpCall("linear_eight", (wide, one, *down, vector, x, "none", half))
        gates = (q, scales, weight, columns, torch.empty(8 * c).half())
        yield OpCall("linear_geglu_eight", (*gates, half))
        yield OpCall("linear_geglu_eight_quantized", (*gates, one, kind))
        pixels, taps = image(c, side, kind), torch.empty(c, c, 3, 3).to(kind, memory_format=torch.channels_last)
        conv = (pixels, one, taps, columns[:c], vector)
        yield OpCall("conv2d_eight", (*conv, torch.empty(2, c).half(), None, 1, 1, "none", half))
        yield OpCall("conv2d_eight", (*conv, None, image(c, side, half), 1, 1, "none", half))
        yield OpCall("conv2d_eight", (*conv, None, None, 2, 1, "none", half))
        doubled = torch.empty(4 * c, c, 2, 2).to(kind, memory_format=torch.channels_last)
        yield OpCall("upsample_conv2d_eight", (pixels, one, doubled, columns[: 4 * c], vector, half))

    with torch.device("meta"):
        return (*layers(2048, 1280, 32), *layers(8192, 320, 64))


@cache
def calls_of_a_step(work: Workload) -> tuple[OpCall, ...]:
    """Every call of our ops in one step with guidance, and in what is evaluated once for a prompt and its times."""
    config = CONFIGS[work.model]
    with torch.device("meta"):
        network = UNet(config).to(torch.float16).eval().to(memory_format=torch.channels_last)
        network.requires_grad_(requires_grad=False)
        x = torch.empty(1, config.in_channels, work.size // 8, (work.width or work.size) // 8)
        vector = None if config.vector_dim is None else torch.empty(BATCH, config.vector_dim, dtype=torch.float16)
        text = TextInputs(torch.empty(BATCH, 77, config.context_dim, dtype=torch.float16), vector)
    call = UNetCall(x, 500.0, text, None)
    with _Recorder() as recorder, torch.no_grad():
        execution = execution_of(network, call)
        recorder.calls.clear()  # of the trace
        execution.set_prompt(call.prompt)
        execution.tabulate([call.timestep], call.device)
        execution.hold_row(call.timestep)
        execution.run_held(*call.moving)
    return tuple(recorder.calls)


def execution_of(network: nn.Module, call: UNetCall) -> Execution:
    inputs = call.network_inputs()
    store = WeightStore(network)
    program, _ = compile_program(store, inputs, bindings=BINDINGS, dims=call.dims(), passes=PASSES, reads_kept=False)
    return Execution(program, program.measure(flatten_inputs(inputs)), call.halves)
