"""Linear of 8-bit numbers with its epilogue: y = act((q W^T) * row_scale * weight_scale + bias) + residual."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.registry import register


def linear_eight_reference(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """q [..., K]; row_scale [..., 1], or [1] for all rows; weight_q [N, K]; weight_scale [N]; the result in `dtype`."""
    y = F.linear(q.float(), weight_q.float()) * row_scale * weight_scale
    y = activate(y if bias is None else y + bias, activation)
    return (y if residual is None else y + residual).to(dtype)


def _linear_eight(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    return linear_eight_reference(q, row_scale, weight_q, weight_scale, bias, residual, activation, dtype)


def _fake(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    return q.new_empty((*q.shape[:-1], weight_q.shape[0]), dtype=dtype)


register(
    "linear_eight(Tensor q, Tensor row_scale, Tensor weight_q, Tensor weight_scale, Tensor? bias, Tensor? residual, "
    "str activation, ScalarType dtype) -> Tensor",
    _linear_eight,
    _fake,
)
