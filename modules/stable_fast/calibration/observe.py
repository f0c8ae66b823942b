"""Runs a graph in eight bits whose scales are not known yet: each follows the largest value seen so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from modules.stable_fast.calibration.scales import Scales
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.scaled.kinds import LARGEST

ops = torch.ops.lightdiffusion


def _geglu(q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    dtype = torch.float16 if bias is None else bias.dtype
    return ops.linear_geglu_eight(q, row_scale, weight_q, weight_scale, bias, dtype)


# Other prompts and LoRAs reach larger values than the first picture. For e4m3, which floats, room for them costs no
# precision. For int8 it does, and the largest values saturate instead.
HEADROOM = {torch.float8_e4m3fn: 2.0, torch.int8: 1.0}

# What an operation quantises, from its arguments before the scale and the kind of numbers.
QUANTISED: dict[Any, Callable[..., Tensor]] = {
    ops.group_norm_silu_quantized.default: ops.group_norm_silu,
    ops.group_norm_silu_cat_quantized.default: ops.group_norm_silu_cat,
    ops.linear_geglu_eight_quantized.default: _geglu,
    ops.quantize_tensor.default: lambda x: x,
}


class Observer(fx.Interpreter):
    """Runs one stage. The results are those of the dynamic scheme, but for values that were larger before."""

    def __init__(self, module: fx.GraphModule, scales: Scales) -> None:
        super().__init__(module)
        self._scales = scales

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in QUANTISED:
            *source, scale, kind = args
            if self._scales.is_unknown(scale):
                with CHOICES.asking(None):  # these calls end with the first picture, so they are not worth timing
                    amax = ops.amax_tensor(QUANTISED[target](*source))
                scale.copy_(torch.maximum(scale, amax * (HEADROOM[kind] / LARGEST[kind])))
        return super().call_function(target, args, kwargs)


def run_stage(module: fx.GraphModule, inputs: Sequence[Tensor], scales: Scales) -> Any:
    """The stage's results. While scales are unknown, they are looked for."""
    if scales.are_known:
        return module(*inputs)
    return Observer(module, scales).run(*inputs)
