"""LayerNorm, alone or after a residual add, whose result is written in 8 bits with a scale for each row."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.eight_bits.quantize_rows import quantize_rows_reference
from modules.stable_fast.kernels.norm.layer_norm import layer_norm_reference
from modules.stable_fast.kernels.registry import register


def layer_norm_quantized_reference(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x [..., C] -> q [..., C], scale [..., 1]."""
    return quantize_rows_reference(layer_norm_reference(x.float(), weight.float(), bias.float(), eps), kind)


def add_layer_norm_quantized_reference(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum, and the norm of the sum."""
    total = x + residual
    return total, *layer_norm_quantized_reference(total, weight, bias, eps, kind)


def _layer_norm_quantized(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    return layer_norm_quantized_reference(x, weight, bias, eps, kind)


def _add_layer_norm_quantized(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    return add_layer_norm_quantized_reference(x, residual, weight, bias, eps, kind)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=kind), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _fake_add(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), *_fake(x, weight, bias, eps, kind)


register(
    "layer_norm_quantized(Tensor x, Tensor weight, Tensor bias, float eps, ScalarType kind) -> (Tensor, Tensor)",
    _layer_norm_quantized,
    _fake,
)
register(
    "add_layer_norm_quantized(Tensor x, Tensor residual, Tensor weight, Tensor bias, float eps, ScalarType kind) -> "
    "(Tensor, Tensor, Tensor)",
    _add_layer_norm_quantized,
    _fake_add,
)
