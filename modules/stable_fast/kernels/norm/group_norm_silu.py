"""GroupNorm, optionally with SiLU, over one tensor or the virtual concatenation of two: y = [silu](gn(x) * w + b)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.candidates import Implementations
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import uses_kernels
from modules.stable_fast.kernels.memory_layout import empty_channels_last, to_channels_last
from modules.stable_fast.kernels.norm.group_norm_kernels import (
    ONE_TILE_ELEMENTS,
    launch_one_kernel,
    launch_two_kernels,
    padded_group,
)
from modules.stable_fast.kernels.registry import register, run_chosen

# Up to this many elements per group, reading them once in one program beats two launches.
SMALL_GROUP = 8192


def group_norm_silu_reference(
    x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool
) -> Tensor:
    y = F.group_norm(x, num_groups, weight, bias, eps)
    return to_channels_last(F.silu(y) if silu else y)


def group_norm_silu_cat_reference(
    a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool
) -> Tensor:
    return group_norm_silu_reference(torch.cat((a, b), dim=1), weight, bias, num_groups, eps, silu)


def _reference(
    a: Tensor, b: Tensor | None, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool
) -> Tensor:
    if b is None:
        return group_norm_silu_reference(a, weight, bias, num_groups, eps, silu)
    return group_norm_silu_cat_reference(a, b, weight, bias, num_groups, eps, silu)


_TWO_KERNELS: Implementations = {"two_kernels": launch_two_kernels}
_EITHER: Implementations = {"one_kernel": launch_one_kernel, **_TWO_KERNELS}


def implementations_for(hw: int, channels_per_group: int) -> tuple[Implementations, tuple[str, ...]]:
    """The candidates for groups of this size, and the names that are tried in turn without tuning."""
    elements = padded_group(hw, channels_per_group)
    implementations = _EITHER if elements <= ONE_TILE_ELEMENTS else _TWO_KERNELS
    return implementations, ("one_kernel", "two_kernels") if elements <= SMALL_GROUP else ("two_kernels",)


def _run_kernels(
    a: Tensor, b: Tensor | None, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool
) -> Tensor:
    a, b = to_channels_last(a), None if b is None else to_channels_last(b)
    hw, channels = a.shape[2] * a.shape[3], weight.numel()
    implementations, chain = implementations_for(hw, channels // num_groups)
    key = (a.shape[0], a.shape[1], channels, hw, num_groups, dtype_key(a))
    args = (a, b, weight, bias, num_groups, eps, silu)
    return run_chosen("group_norm_silu", key, implementations, chain, args, lambda: _reference(*args))


def _group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool) -> Tensor:
    if not uses_kernels(x):
        return _reference(x, None, weight, bias, num_groups, eps, silu)
    return _run_kernels(x, None, weight, bias, num_groups, eps, silu)


def _group_norm_silu_cat(
    a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool
) -> Tensor:
    if not uses_kernels(a):
        return _reference(a, b, weight, bias, num_groups, eps, silu)
    return _run_kernels(a, b, weight, bias, num_groups, eps, silu)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool) -> Tensor:
    return empty_channels_last(tuple(x.shape), x)


def _fake_cat(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float, silu: bool) -> Tensor:
    return empty_channels_last((a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]), a)


_NORM_ARGS = "Tensor weight, Tensor bias, int num_groups, float eps, bool silu) -> Tensor"
register(f"group_norm_silu(Tensor x, {_NORM_ARGS}", _group_norm_silu, _fake)
register(f"group_norm_silu_cat(Tensor a, Tensor b, {_NORM_ARGS}", _group_norm_silu_cat, _fake_cat)
