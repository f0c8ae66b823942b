"""GroupNorm, optionally with SiLU, over one tensor or two, whose result is written in 8 bits with a known scale."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.eight_bits.kinds import quantised
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.norm.group_norm_silu import group_norm_silu_reference
from modules.stable_fast.kernels.registry import register


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
    return group_norm_silu_quantized_reference(x, weight, bias, num_groups, eps, silu, scale, kind)


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
    return group_norm_silu_cat_quantized_reference(a, b, weight, bias, num_groups, eps, silu, scale, kind)


def _empty(x: Tensor, channels: int, kind: torch.dtype) -> Tensor:
    shape = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(shape, dtype=kind, device=x.device, memory_format=torch.channels_last)


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
