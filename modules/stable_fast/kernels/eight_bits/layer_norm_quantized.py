"""LayerNorm, alone or after a residual add, whose result is written in 8 bits with a scale for each row."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import writes_eight_bits
from modules.stable_fast.kernels.eight_bits.quantize_rows import quantize_rows_reference
from modules.stable_fast.kernels.eight_bits.row_kernels import launch_layer_norm_quantized
from modules.stable_fast.kernels.norm.layer_norm import layer_norm_reference
from modules.stable_fast.kernels.norm.row_tiles import fits_rows, rows_key
from modules.stable_fast.kernels.registry import register, run_chosen


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


def _norm_alone(x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return launch_layer_norm_quantized(x, None, weight, bias, eps, kind)[1:]


_NORM = {"triton": _norm_alone}
_ADD_NORM = {"triton": launch_layer_norm_quantized}


def _fits(x: Tensor, kind: torch.dtype) -> bool:
    return fits_rows(x) and writes_eight_bits(x, kind)


def _layer_norm_quantized(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    reference = partial(layer_norm_quantized_reference, x, weight, bias, eps, kind)
    if not _fits(x, kind):
        return reference()
    args, key = (x.contiguous(), weight, bias, eps, kind), (*rows_key(x), str(kind))
    return run_chosen("layer_norm_quantized", key, _NORM, ("triton",), args, reference)


def _add_layer_norm_quantized(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    reference = partial(add_layer_norm_quantized_reference, x, residual, weight, bias, eps, kind)
    if not _fits(x, kind):
        return reference()
    args = (x.contiguous(), residual.contiguous(), weight, bias, eps, kind)
    key = (*rows_key(x), str(kind))
    return run_chosen("add_layer_norm_quantized", key, _ADD_NORM, ("triton",), args, reference)


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
