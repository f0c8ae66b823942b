"""GEGLU projection: y = (x V^T + c) * gelu(x G^T + d), weight = [V; G] and bias = [c; d], erf GELU, as in LDM."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels._dispatch import register


def linear_geglu_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    value, gate = F.linear(x, weight, bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def _linear_geglu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear_geglu_reference(x, weight, bias)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0] // 2))


register("linear_geglu(Tensor x, Tensor weight, Tensor? bias) -> Tensor", _linear_geglu, _fake)
