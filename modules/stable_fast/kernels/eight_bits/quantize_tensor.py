"""8-bit numbers with one known scale for a whole tensor, and the largest magnitude from which it is calibrated."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.eight_bits.kinds import quantised
from modules.stable_fast.kernels.registry import register


def quantize_tensor_reference(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    """x and scale [1] -> q in the memory format of x. What is beyond the range saturates."""
    q = torch.empty_like(x, dtype=kind)
    return q.copy_(quantised(x, scale, kind))


def amax_tensor_reference(x: Tensor) -> Tensor:
    """The largest magnitude in x, as fp32 [1]; NaN if x has one."""
    return x.abs().amax().float().view(1)


def _quantize_tensor(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    return quantize_tensor_reference(x, scale, kind)


def _fake_tensor(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=kind)


def _fake_amax(x: Tensor) -> Tensor:
    return x.new_empty(1, dtype=torch.float32)


register("quantize_tensor(Tensor x, Tensor scale, ScalarType kind) -> Tensor", _quantize_tensor, _fake_tensor)
register("amax_tensor(Tensor x) -> Tensor", amax_tensor_reference, _fake_amax)
