"""RMSNorm of queries or keys and their rotary embedding in one pass, which may join text and picture before (Flux).

y = rotary(cat(norm(before) * before_weight, norm(x) * weight)), with the roundings of rms_norm and rotary_embedding.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.elementwise.rotary_embedding import (
    channels_together,
    load_pairs,
    rotary_embedding_reference,
    store_pairs,
)
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.norm.rms_norm import rms_norm_reference
from modules.stable_fast.kernels.norm.row_tiles import MAX_CHANNELS, fits_rows, row_tiles, rows_key
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, tl


def rms_norm_rotary_reference(
    x: Tensor,
    weight: Tensor,
    before: Tensor | None,
    before_weight: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
) -> Tensor:
    """x [B, L, H, D], before [B, M, H, D], cos and sin broadcast to [B, M + L, H, D]."""
    y = rms_norm_reference(x, weight, eps)
    if before is not None:
        y = torch.cat((rms_norm_reference(before, before_weight, eps), y), dim=1)
    return rotary_embedding_reference(y, cos, sin, interleaved)


@jit_for_any("rows", "length", "first")
def _norm_rotary_kernel(
    x_ptr, before_ptr, w_ptr, before_w_ptr, cos_ptr, sin_ptr, y_ptr, rows, length, heads, first, pairs, eps,
    x_stride_a, x_stride_b, x_stride_c, before_stride_a, before_stride_b, before_stride_c,
    cos_stride_a, cos_stride_b, cos_stride_c, sin_stride_a, sin_stride_b, sin_stride_c,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, INTERLEAVED: tl.constexpr, JOINS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    i, j, k = row // heads // length, row // heads % length, row % heads
    own = inside & (j >= first)
    x_row = x_ptr + i * x_stride_a + (j - first) * x_stride_b + k * x_stride_c
    a, b = load_pairs(x_row, own, pairs, ROWS, BLOCK, INTERLEAVED)
    w_a, w_b = load_pairs(w_ptr + row * 0, own, pairs, ROWS, BLOCK, INTERLEAVED)
    if JOINS:  # what is not loaded is zero
        text = inside & (j < first)
        before_row = before_ptr + i * before_stride_a + j * before_stride_b + k * before_stride_c
        more_a, more_b = load_pairs(before_row, text, pairs, ROWS, BLOCK, INTERLEAVED)
        more_w_a, more_w_b = load_pairs(before_w_ptr + row * 0, text, pairs, ROWS, BLOCK, INTERLEAVED)
        a, b, w_a, w_b = a + more_a, b + more_b, w_a + more_w_a, w_b + more_w_b
    dtype = y_ptr.dtype.element_ty
    rstd = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / (2 * pairs) + eps)[:, None]
    a = ((a * rstd).to(dtype).to(tl.float32) * w_a).to(dtype).to(tl.float32)
    b = ((b * rstd).to(dtype).to(tl.float32) * w_b).to(dtype).to(tl.float32)
    cos_row = cos_ptr + i * cos_stride_a + j * cos_stride_b + k * cos_stride_c
    sin_row = sin_ptr + i * sin_stride_a + j * sin_stride_b + k * sin_stride_c
    cos_a, cos_b = load_pairs(cos_row, inside, pairs, ROWS, BLOCK, INTERLEAVED)
    sin_a, sin_b = load_pairs(sin_row, inside, pairs, ROWS, BLOCK, INTERLEAVED)
    y_row = y_ptr + row * (2 * pairs)
    store_pairs(y_row, a * cos_a - b * sin_a, b * cos_b + a * sin_b, inside, pairs, dtype, BLOCK, INTERLEAVED)


def launch_rms_norm_rotary(
    x: Tensor,
    weight: Tensor,
    before: Tensor | None,
    before_weight: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
) -> Tensor:
    """x [B, L, H, D] and before [B, M, H, D], channels next to each other; cos and sin broadcast to the result."""
    batch, length, heads, channels = x.shape
    first = 0 if before is None else before.shape[1]
    other, other_weight = x if before is None else before, weight if before_weight is None else before_weight
    assert runs_kernels(x) and channels % 2 == 0 and channels <= MAX_CHANNELS and (before is None) == (first == 0)
    assert x.stride(-1) == other.stride(-1) == cos.stride(-1) == sin.stride(-1) == 1
    assert all(each.is_contiguous() and each.numel() == channels for each in (weight, other_weight))
    shape = (batch, first + length, heads, channels)
    y = x.new_empty(shape)
    tiles = row_tiles(y)
    strides = (x.stride()[:3], other.stride()[:3], cos.expand(shape).stride()[:3], sin.expand(shape).stride()[:3])
    launch_kernel(
        _norm_rotary_kernel, tiles.grid,
        x, other, weight, other_weight, cos, sin, y, tiles.rows, first + length, heads, first, channels // 2, eps,
        *(s for each in strides for s in each),
        ROWS=tiles.per_program, BLOCK=tiles.block // 2, INTERLEAVED=interleaved, JOINS=before is not None,
        num_warps=tiles.warps,
    )  # fmt: skip
    return y


def _rms_norm_rotary(
    x: Tensor,
    weight: Tensor,
    before: Tensor | None,
    before_weight: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
) -> Tensor:
    x, cos, sin = channels_together(x), channels_together(cos), channels_together(sin)
    before = None if before is None else channels_together(before)
    args = (x, weight, before, before_weight, eps, cos, sin, interleaved)
    reference = partial(rms_norm_rotary_reference, *args)
    if not fits_rows(x):
        return reference()
    key = (*rows_key(x), 0 if before is None else before.shape[1], interleaved)
    return run_chosen("rms_norm_rotary", key, {"triton": launch_rms_norm_rotary}, ("triton",), args, reference)


def _fake(
    x: Tensor,
    weight: Tensor,
    before: Tensor | None,
    before_weight: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
) -> Tensor:
    batch, length, heads, channels = x.shape
    return x.new_empty((batch, length + (0 if before is None else before.shape[1]), heads, channels))


register(
    "rms_norm_rotary(Tensor x, Tensor weight, Tensor? before, Tensor? before_weight, float eps, Tensor cos, "
    "Tensor sin, bool interleaved) -> Tensor",
    _rms_norm_rotary,
    _fake,
)
