"""LayerNorm over the last dimension, alone or after a residual add: y = ln(x) * w + b; s = x + r, y = ln(s) * w + b."""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.norm.row_tiles import MAX_CHANNELS, fits_rows, row_tiles, rows_key
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, tl


def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def add_layer_norm_reference(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    total = x + residual
    return total, layer_norm_reference(total, weight, bias, eps)


@jit_for_any("rows")
def _layer_norm_kernel(
    x_ptr, residual_ptr, w_ptr, bias_ptr, sum_ptr, y_ptr, rows, C, eps,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_C)
    inside = column < C
    mask = (row < rows)[:, None] & inside[None, :]
    offset = row[:, None] * C + column[None, :]
    weight = tl.load(w_ptr + column, mask=inside, other=0.0)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0)
    tl.debug_barrier()  # otherwise ptxas loads these from memory only after it has summed x
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        rounded = x.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offset, rounded, mask=mask)
        x = rounded.to(tl.float32)  # the norm uses the rounded sum, as it does without fusion
    mean = tl.sum(x, axis=1) / C
    centred = tl.where(mask, x - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / C + eps)
    y = centred * rstd[:, None] * weight.to(tl.float32)[None, :] + bias.to(tl.float32)[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_layer_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + residual, its norm), or (x, its norm) without a residual."""
    channels = x.shape[-1]
    assert runs_kernels(x) and x.is_contiguous() and weight.is_contiguous() and bias.is_contiguous()
    assert weight.numel() == bias.numel() == channels <= MAX_CHANNELS
    assert residual is None or (residual.is_contiguous() and residual.shape == x.shape and residual.dtype == x.dtype)
    tiles = row_tiles(x)
    total = x if residual is None else torch.empty_like(x)
    y = torch.empty_like(x)
    launch_kernel(
        _layer_norm_kernel, tiles.grid,
        x, x if residual is None else residual, weight, bias, total, y, tiles.rows, channels, eps,
        ROWS=tiles.per_program, BLOCK_C=tiles.block, ADD=residual is not None, num_warps=tiles.warps,
    )  # fmt: skip
    return total, y


def _norm_alone(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return launch_layer_norm(x, None, weight, bias, eps)[1]


_NORM = {"triton": _norm_alone}
_ADD_NORM = {"triton": launch_layer_norm}


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if not fits_rows(x):
        return layer_norm_reference(x, weight, bias, eps)
    reference = partial(layer_norm_reference, x, weight, bias, eps)
    return run_chosen("layer_norm", rows_key(x), _NORM, ("triton",), (x.contiguous(), weight, bias, eps), reference)


def _add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    if not fits_rows(x):
        return add_layer_norm_reference(x, residual, weight, bias, eps)
    args = (x.contiguous(), residual.contiguous(), weight, bias, eps)
    reference = partial(add_layer_norm_reference, x, residual, weight, bias, eps)
    return run_chosen("add_layer_norm", rows_key(x), _ADD_NORM, ("triton",), args, reference)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_add(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return _fake(x, weight, bias, eps), _fake(x, weight, bias, eps)


register("layer_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor", _layer_norm, _fake)
register(
    "add_layer_norm(Tensor x, Tensor residual, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    _add_layer_norm,
    _fake_add,
)
