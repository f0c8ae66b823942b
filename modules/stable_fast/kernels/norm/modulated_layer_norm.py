"""LayerNorm without weights, scaled and shifted by each sample's own vectors: y = ln(x) * (1 + scale) + shift.

This is the adaptive norm of diffusion transformers (Peebles and Xie 2023, "adaLN").
"""

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


def modulated_layer_norm_reference(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """x [B, L, C]; scale and shift [B, C]."""
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale[:, None]) + shift[:, None]


@jit_for_any("rows", "length")
def _modulated_kernel(
    x_ptr, scale_ptr, shift_ptr, y_ptr, rows, length, C, scale_stride, shift_stride, eps,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_C)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    offset = row[:, None] * C + column[None, :]
    sample = row // length
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + (sample * scale_stride)[:, None] + column[None, :], mask=mask, other=0.0)
    shift = tl.load(shift_ptr + (sample * shift_stride)[:, None] + column[None, :], mask=mask, other=0.0)
    mean = tl.sum(x, axis=1) / C
    centred = tl.where(mask, x - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / C + eps)
    y = centred * rstd[:, None] * (1.0 + scale.to(tl.float32)) + shift.to(tl.float32)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_modulated_layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """x [B, L, C]; scale and shift [B, C], which may be columns of a wider tensor."""
    assert runs_kernels(x) and x.is_contiguous() and x.dim() == 3 and x.shape[-1] <= MAX_CHANNELS
    for vector in (scale, shift):
        assert vector.shape == (x.shape[0], x.shape[2]) and vector.stride(1) == 1 and vector.dtype == x.dtype
    tiles = row_tiles(x)
    y = torch.empty_like(x)
    launch_kernel(
        _modulated_kernel, tiles.grid,
        x, scale, shift, y, tiles.rows, x.shape[1], x.shape[2], scale.stride(0), shift.stride(0), eps,
        ROWS=tiles.per_program, BLOCK_C=tiles.block, num_warps=tiles.warps,
    )  # fmt: skip
    return y


_IMPLEMENTATIONS = {"triton": launch_modulated_layer_norm}


def _modulated_layer_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    args = (x.contiguous(), scale, shift, eps)
    if not fits_rows(x):
        return modulated_layer_norm_reference(*args)
    reference = partial(modulated_layer_norm_reference, *args)
    return run_chosen("modulated_layer_norm", rows_key(x), _IMPLEMENTATIONS, ("triton",), args, reference)


def _fake(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


register(
    "modulated_layer_norm(Tensor x, Tensor scale, Tensor shift, float eps) -> Tensor", _modulated_layer_norm, _fake
)
