"""GEGLU projection of 8-bit numbers: y = (q V^T * scales + c) * gelu(q G^T * scales + d), weight_q = [V; G], erf GELU.

`linear_geglu_eight_quantized` writes y in 8 bits with a known scale, for the linear that follows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.eight_bits.kinds import quantised
from modules.stable_fast.kernels.registry import register


def linear_geglu_eight_reference(
    q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """q [..., K]; row_scale [..., 1] or [1]; weight_q [2 I, K]; weight_scale and bias [2 I]; the result in `dtype`."""
    return _gated(q, row_scale, weight_q, weight_scale, bias).to(dtype)


def linear_geglu_eight_quantized_reference(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return quantised(_gated(q, row_scale, weight_q, weight_scale, bias), scale, kind)


def _gated(q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    y = F.linear(q.float(), weight_q.float()) * row_scale * weight_scale
    value, gate = (y if bias is None else y + bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def _linear_geglu_eight(
    q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return linear_geglu_eight_reference(q, row_scale, weight_q, weight_scale, bias, dtype)


def _linear_geglu_eight_quantized(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return linear_geglu_eight_quantized_reference(q, row_scale, weight_q, weight_scale, bias, scale, kind)


def _fake(
    q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return q.new_empty((*q.shape[:-1], weight_q.shape[0] // 2), dtype=dtype)


def _fake_quantized(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return _fake(q, row_scale, weight_q, weight_scale, bias, kind)


_ARGS = "Tensor q, Tensor row_scale, Tensor weight_q, Tensor weight_scale, Tensor? bias"
register(f"linear_geglu_eight({_ARGS}, ScalarType dtype) -> Tensor", _linear_geglu_eight, _fake)
register(
    f"linear_geglu_eight_quantized({_ARGS}, Tensor scale, ScalarType kind) -> Tensor",
    _linear_geglu_eight_quantized,
    _fake_quantized,
)
