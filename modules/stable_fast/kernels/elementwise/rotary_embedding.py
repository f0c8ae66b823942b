"""Rotary embedding: turns each pair of channels (a, b) by its angle: y = (a cos - b sin, b cos + a sin).

Pairs are neighbours (2i, 2i + 1) if `interleaved`, as in Flux, else (i, i + D / 2), as in Llama. Cosines and sines are
given for every channel (Su et al. 2021, "RoFormer", equation 34). The kernel computes in fp32.
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
from modules.stable_fast.kernels.triton_import import jit, jit_for_any, tl


def rotary_embedding_reference(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """x [..., D], where D is even; cos and sin [..., D] broadcast to it."""
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    if interleaved:
        a, b = wide.unflatten(-1, (-1, 2)).unbind(-1)
        quarter_turn = torch.stack((-b, a), dim=-1).flatten(-2)
    else:
        a, b = wide.chunk(2, dim=-1)
        quarter_turn = torch.cat((-b, a), dim=-1)
    return (wide * cos + quarter_turn * sin).to(x.dtype).contiguous()


@jit
def load_pairs(row_ptr, inside, pairs, ROWS: tl.constexpr, BLOCK: tl.constexpr, INTERLEAVED: tl.constexpr):
    """The first and the second channels of all pairs of these rows, [ROWS, BLOCK] each, in fp32."""
    if INTERLEAVED:  # reads both together and takes them apart in registers, so that a thread loads 4 bytes or more
        column = tl.arange(0, 2 * BLOCK)
        mask = inside[:, None] & (column < 2 * pairs)[None, :]
        both = tl.load(row_ptr[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
        a, b = tl.split(tl.reshape(both, (ROWS, BLOCK, 2)))
    else:
        column = tl.arange(0, BLOCK)
        mask = inside[:, None] & (column < pairs)[None, :]
        a = tl.load(row_ptr[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
        b = tl.load(row_ptr[:, None] + pairs + column[None, :], mask=mask, other=0.0).to(tl.float32)
    return a, b


@jit
def store_pairs(row_ptr, a, b, inside, pairs, dtype: tl.constexpr, BLOCK: tl.constexpr, INTERLEAVED: tl.constexpr):
    """Puts the first and the second channels back into these rows."""
    first, second = a.to(dtype), b.to(dtype)
    if INTERLEAVED:
        column = tl.arange(0, 2 * BLOCK)
        mask = inside[:, None] & (column < 2 * pairs)[None, :]
        tl.store(row_ptr[:, None] + column[None, :], tl.interleave(first, second), mask=mask)
    else:
        column = tl.arange(0, BLOCK)
        mask = inside[:, None] & (column < pairs)[None, :]
        tl.store(row_ptr[:, None] + column[None, :], first, mask=mask)
        tl.store(row_ptr[:, None] + pairs + column[None, :], second, mask=mask)


@jit_for_any("rows", "size_b", "size_c")
def _rotary_kernel(
    x_ptr, cos_ptr, sin_ptr, y_ptr, rows, size_b, size_c, pairs, x_stride_a, x_stride_b, x_stride_c,
    cos_stride_a, cos_stride_b, cos_stride_c, sin_stride_a, sin_stride_b, sin_stride_c,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    i, j, k = row // size_c // size_b, row // size_c % size_b, row % size_c
    x_row = x_ptr + i * x_stride_a + j * x_stride_b + k * x_stride_c
    cos_row = cos_ptr + i * cos_stride_a + j * cos_stride_b + k * cos_stride_c
    sin_row = sin_ptr + i * sin_stride_a + j * sin_stride_b + k * sin_stride_c
    a, b = load_pairs(x_row, inside, pairs, ROWS, BLOCK, INTERLEAVED)
    cos_a, cos_b = load_pairs(cos_row, inside, pairs, ROWS, BLOCK, INTERLEAVED)
    sin_a, sin_b = load_pairs(sin_row, inside, pairs, ROWS, BLOCK, INTERLEAVED)
    y_row = y_ptr + row * (2 * pairs)
    dtype = y_ptr.dtype.element_ty
    store_pairs(y_row, a * cos_a - b * sin_a, b * cos_b + a * sin_b, inside, pairs, dtype, BLOCK, INTERLEAVED)


def launch_rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """x [..., D] of at most four dimensions, channels next to each other; cos and sin [..., D] broadcast to it."""
    channels = x.shape[-1]
    assert runs_kernels(x) and x.dim() <= 4 and channels == cos.shape[-1] == sin.shape[-1] and channels % 2 == 0
    assert channels <= MAX_CHANNELS and x.stride(-1) == cos.stride(-1) == sin.stride(-1) == 1
    tiles = row_tiles(x)
    *sizes, _ = shape = (1,) * (4 - x.dim()) + x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    strides = (each.expand(shape).stride()[:3] for each in (x, cos, sin))
    launch_kernel(
        _rotary_kernel, tiles.grid,
        x, cos, sin, y, tiles.rows, *sizes[1:], channels // 2, *(s for each in strides for s in each),
        ROWS=tiles.per_program, BLOCK=tiles.block // 2, INTERLEAVED=interleaved, num_warps=tiles.warps,
    )  # fmt: skip
    return y


def channels_together(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    if not fits_rows(x):
        return rotary_embedding_reference(x, cos, sin, interleaved)
    args = (channels_together(x), channels_together(cos), channels_together(sin), interleaved)
    key, table = (*rows_key(x), interleaved), {"triton": launch_rotary_embedding}
    reference = partial(rotary_embedding_reference, *args)
    return run_chosen("rotary_embedding", key, table, ("triton",), args, reference)


def _fake(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


register("rotary_embedding(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor", _rotary_embedding, _fake)
