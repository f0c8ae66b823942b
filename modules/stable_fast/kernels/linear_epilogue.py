"""Linear with its epilogue: y = act(x W^T + b) + residual, for activation none, silu, gelu (erf) or quick_gelu."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels._activations import activate
from modules.stable_fast.kernels._dispatch import register


def linear_epilogue_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    y = activate(F.linear(x, weight, bias), activation)
    return y if residual is None else y + residual


def _linear_epilogue(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    return linear_epilogue_reference(x, weight, bias, residual, activation)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


register(
    "linear_epilogue(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation) -> Tensor",
    _linear_epilogue,
    _fake,
)
