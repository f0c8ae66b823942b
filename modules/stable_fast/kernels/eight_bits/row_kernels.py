"""Triton kernels that write rows in 8 bits with a scale for each: of any length, or normalised first."""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.norm.row_tiles import MAX_CHANNELS, row_tiles
from modules.stable_fast.kernels.scaled.kinds import LARGEST, largest_of, reciprocal, rounded_in_kernel, scale_in_kernel
from modules.stable_fast.kernels.triton_import import jit_for_any, next_power_of_2, tl

# A longer row is read twice, in parts of this length.
PART = 4096


@jit_for_any("rows")
def _quantize_rows_kernel(
    x_ptr, q_ptr, scale_ptr, rows, C,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, LARGEST: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_C)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    offset = row[:, None] * C + column[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    scale = scale_in_kernel(largest_of(x, 1), LARGEST)
    tl.store(q_ptr + offset, rounded_in_kernel(x * reciprocal(scale)[:, None], INTEGER, WITHIN=True), mask=mask)
    tl.store(scale_ptr + row, scale, mask=row < rows)


@jit_for_any("C")
def _quantize_long_rows_kernel(
    x_ptr, q_ptr, scale_ptr, C, BLOCK_C: tl.constexpr, LARGEST: tl.constexpr, INTEGER: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_C)
    amax = tl.zeros([BLOCK_C], dtype=tl.float32)
    for start in range(0, C, BLOCK_C):
        x = tl.load(x_ptr + row * C + start + column, mask=start + column < C, other=0.0).to(tl.float32)
        amax = tl.maximum(amax, tl.abs(x), propagate_nan=tl.PropagateNan.ALL)
    scale = scale_in_kernel(largest_of(amax, 0), LARGEST)
    inverse = reciprocal(scale)
    for start in range(0, C, BLOCK_C):
        x = tl.load(x_ptr + row * C + start + column, mask=start + column < C, other=0.0).to(tl.float32)
        q = rounded_in_kernel(x * inverse, INTEGER, WITHIN=True)
        tl.store(q_ptr + row * C + start + column, q, mask=start + column < C)
    tl.store(scale_ptr + row, scale)


def launch_quantize_rows(x: Tensor, q: Tensor) -> Tensor:
    """Writes x [R, C] into q, and returns the scales [R]."""
    rows, channels = x.shape
    assert runs_kernels(x) and x.is_contiguous() and q.is_contiguous() and q.shape == x.shape
    scale = x.new_empty(rows, dtype=torch.float32)
    options = {"LARGEST": LARGEST[q.dtype], "INTEGER": q.dtype == torch.int8}
    if channels <= MAX_CHANNELS:
        tiles = row_tiles(x)
        launch_kernel(
            _quantize_rows_kernel, tiles.grid,
            x, q, scale, rows, channels, ROWS=tiles.per_program, BLOCK_C=tiles.block, **options,
            num_warps=tiles.warps,
        )  # fmt: skip
    else:
        block = min(PART, next_power_of_2(channels))
        launch_kernel(_quantize_long_rows_kernel, (rows,), x, q, scale, channels, BLOCK_C=block, **options, num_warps=8)
    return scale


@jit_for_any("rows")
def _layer_norm_kernel(
    x_ptr, residual_ptr, w_ptr, bias_ptr, sum_ptr, q_ptr, scale_ptr, rows, C, eps,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, ADD: tl.constexpr, LARGEST: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * ROWS  # all that counts from here has 32 bits, and takes half the registers
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_C)
    inside = column < C
    mask = (row < rows - first)[:, None] & inside[None, :]
    offset = row[:, None] * C + column[None, :]
    weight = tl.load(w_ptr + column, mask=inside, other=0.0)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0)
    tl.debug_barrier()  # otherwise ptxas loads these from memory only after it has summed x
    x = tl.load(x_ptr + first * C + offset, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual_ptr + first * C + offset, mask=mask, other=0.0).to(tl.float32)
        rounded = x.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + first * C + offset, rounded, mask=mask)
        x = rounded.to(tl.float32)  # the norm uses the rounded sum, as it does without fusion
    mean = tl.sum(x, axis=1) / C
    centred = tl.where(mask, x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / C
    y = centred * tl.rsqrt(variance + eps)[:, None] * weight.to(tl.float32)[None, :] + bias.to(tl.float32)[None, :]
    scale = scale_in_kernel(largest_of(y, 1), LARGEST)
    q = rounded_in_kernel(y * reciprocal(scale)[:, None], INTEGER, WITHIN=True)
    tl.store(q_ptr + first * C + offset, q, mask=mask)
    tl.store(scale_ptr + first + row, scale, mask=row < rows - first)


def launch_layer_norm_quantized(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """(x + residual, its norm in 8 bits, the scales of its rows), or x in the first place without a residual."""
    channels = x.shape[-1]
    assert runs_kernels(x) and x.is_contiguous() and weight.is_contiguous() and bias.is_contiguous()
    assert weight.numel() == bias.numel() == channels <= MAX_CHANNELS
    assert residual is None or (residual.is_contiguous() and residual.shape == x.shape and residual.dtype == x.dtype)
    tiles = row_tiles(x)
    total = x if residual is None else torch.empty_like(x)
    q, scale = torch.empty_like(x, dtype=kind), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    launch_kernel(
        _layer_norm_kernel, tiles.grid,
        x, x if residual is None else residual, weight, bias, total, q, scale, tiles.rows, channels, eps,
        ROWS=tiles.per_program, BLOCK_C=tiles.block, ADD=residual is not None, LARGEST=LARGEST[kind],
        INTEGER=kind == torch.int8, num_warps=tiles.warps,
    )  # fmt: skip
    return total, q, scale
