"""GroupNorm, optionally with SiLU, over one tensor or two, whose result is written in 8 bits with a known scale."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import uses_kernels, writes_eight_bits
from modules.stable_fast.kernels.memory_layout import empty_channels_last, to_channels_last
from modules.stable_fast.kernels.norm.group_norm_silu import group_norm_silu_reference, implementations_for
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.kinds import quantised
from modules.stable_fast.kernels.scaled.scales import Eight


def group_norm_silu_quantized_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    """x [B, C, H, W] and scale [1] -> q, NHWC in memory. What is beyond the range saturates."""
    y = group_norm_silu_reference(x.float(), weight.float(), bias.float(), num_groups, eps, silu)
    return to_channels_last(quantised(y, scale, kind))


def group_norm_silu_cat_quantized_reference(
    a: Tensor,
    b: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    joined = torch.cat((a, b), dim=1)
    return group_norm_silu_quantized_reference(joined, weight, bias, num_groups, eps, silu, scale, kind)


def _run(
    a: Tensor,
    b: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    tail = (weight, bias, num_groups, eps, silu)
    if b is None:
        reference = partial(group_norm_silu_quantized_reference, a, *tail, scale, kind)
    else:
        reference = partial(group_norm_silu_cat_quantized_reference, a, b, *tail, scale, kind)
    if not (uses_kernels(a) and writes_eight_bits(a, kind)):
        return reference()
    a, b = to_channels_last(a), None if b is None else to_channels_last(b)
    hw, channels = a.shape[2] * a.shape[3], weight.numel()
    implementations, chain = implementations_for(hw, channels // num_groups)
    key = (a.shape[0], a.shape[1], channels, hw, num_groups, dtype_key(a), str(kind))
    args = (a, b, *tail, Eight(scale, kind))
    return run_chosen("group_norm_silu_quantized", key, implementations, chain, args, reference)


def _group_norm_silu_quantized(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return _run(x, None, weight, bias, num_groups, eps, silu, scale, kind)


def _group_norm_silu_cat_quantized(
    a: Tensor,
    b: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return _run(a, b, weight, bias, num_groups, eps, silu, scale, kind)


def _empty(x: Tensor, channels: int, kind: torch.dtype) -> Tensor:
    return empty_channels_last((x.shape[0], channels, *x.shape[2:]), x, kind)


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return _empty(x, x.shape[1], kind)


def _fake_cat(
    a: Tensor,
    b: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return _empty(a, a.shape[1] + b.shape[1], kind)


_ARGS = "Tensor weight, Tensor bias, int num_groups, float eps, bool silu, Tensor scale, ScalarType kind) -> Tensor"
register(f"group_norm_silu_quantized(Tensor x, {_ARGS}", _group_norm_silu_quantized, _fake)
register(f"group_norm_silu_cat_quantized(Tensor a, Tensor b, {_ARGS}", _group_norm_silu_cat_quantized, _fake_cat)
