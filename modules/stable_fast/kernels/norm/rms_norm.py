"""RMSNorm over the last dimension, alone or after a residual add: y = x / sqrt(mean(x^2) + eps) * w.

The normalised row is rounded to the dtype of x before it is multiplied by the weight (Zhang and Sennrich 2019; the
rounding is that of transformers).
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.norm.row_tiles import MAX_CHANNELS, fits_rows, row_tiles, rows_key
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, tl


def rms_norm_reference(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    y = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    return y if weight is None else y * weight


def add_rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    total = x + residual
    return total, rms_norm_reference(total, weight, eps)


@jit_for_any("rows")
def _rms_norm_kernel(
    x_ptr, residual_ptr, w_ptr, sum_ptr, y_ptr, rows, C, eps,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, ADD: tl.constexpr, WEIGHT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_C)
    inside = column < C
    mask = (row < rows)[:, None] & inside[None, :]
    offset = row[:, None] * C + column[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        rounded = x.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offset, rounded, mask=mask)
        x = rounded.to(tl.float32)  # the norm uses the rounded sum, as it does without fusion
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / C + eps)[:, None]
    if WEIGHT:
        weight = tl.load(w_ptr + column, mask=inside, other=0.0).to(tl.float32)
        y = y.to(y_ptr.dtype.element_ty).to(tl.float32) * weight[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """(x + residual, its norm), or (x, its norm) without a residual."""
    channels = x.shape[-1]
    assert runs_kernels(x) and x.is_contiguous() and channels <= MAX_CHANNELS
    assert weight is None or (weight.is_contiguous() and weight.numel() == channels and weight.dtype == x.dtype)
    assert residual is None or (residual.is_contiguous() and residual.shape == x.shape and residual.dtype == x.dtype)
    tiles = row_tiles(x)
    total = x if residual is None else torch.empty_like(x)
    y = torch.empty_like(x)
    launch_kernel(
        _rms_norm_kernel, tiles.grid,
        x, x if residual is None else residual, x if weight is None else weight, total, y, tiles.rows, channels, eps,
        ROWS=tiles.per_program, BLOCK_C=tiles.block, ADD=residual is not None, WEIGHT=weight is not None,
        num_warps=tiles.warps,
    )  # fmt: skip
    return total, y


def _norm_alone(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return launch_rms_norm(x, None, weight, eps)[1]


_NORM = {"triton": _norm_alone}
_ADD_NORM = {"triton": launch_rms_norm}


def _rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    args = (x.contiguous(), weight, eps)
    if not fits_rows(x):
        return rms_norm_reference(*args)
    return run_chosen("rms_norm", rows_key(x), _NORM, ("triton",), args, partial(rms_norm_reference, *args))


def _add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    args = (x.contiguous(), residual.contiguous(), weight, eps)
    if not fits_rows(x):
        return add_rms_norm_reference(*args)
    reference = partial(add_rms_norm_reference, *args)
    return run_chosen("add_rms_norm", rows_key(x), _ADD_NORM, ("triton",), args, reference)


def _fake(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_add(x: Tensor, residual: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return _fake(x, weight, eps), _fake(x, weight, eps)


register("rms_norm(Tensor x, Tensor? weight, float eps) -> Tensor", _rms_norm, _fake)
register(
    "add_rms_norm(Tensor x, Tensor residual, Tensor? weight, float eps) -> (Tensor, Tensor)", _add_rms_norm, _fake_add
)
