"""Triton kernels and launchers of GroupNorm(+SiLU) on NHWC memory, over one tensor or two read as their concatenation.

Statistics are fp32 means and centred sums of squares merged pairwise (Chan), so a large mean costs no precision.
`launch_one_kernel`: a program owns whole groups, reads them twice (or once, when they fit in registers).
`launch_two_kernels`: statistics of row chunks first, then every program merges them and normalises its own tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels._dispatch import empty_channels_last, multiprocessors, runs_kernels
from modules.stable_fast.kernels._triton import jit, next_power_of_2, tl, triton

MAX_CHUNKS = 64
# Elements of one group that still fit in one program's registers (16 warps x 32 threads x 128 halves).
ONE_TILE_ELEMENTS = 32768


@jit
def _load_tile(a_ptr, b_ptr, n, rows, groups, HW, C, CA, mask, CG: tl.constexpr, CGP: tl.constexpr, CAT: tl.constexpr):
    """[rows, groups, CGP] values in fp32; channels below CA come from a, the others from b."""
    channel = groups[:, None] * CG + tl.arange(0, CGP)[None, :]
    if CAT:
        base = n.to(tl.int64) * HW
        in_a = (channel < CA)[None, :, :]
        a = tl.load(a_ptr + base * CA + rows[:, None, None] * CA + channel[None, :, :], mask=mask & in_a, other=0.0)
        cb = C - CA
        shifted = channel[None, :, :] - CA
        b = tl.load(b_ptr + base * cb + rows[:, None, None] * cb + shifted, mask=mask & (shifted >= 0), other=0.0)
        return tl.where(in_a, a, b).to(tl.float32)
    base = n.to(tl.int64) * HW * C
    return tl.load(a_ptr + base + rows[:, None, None] * C + channel[None, :, :], mask=mask, other=0.0).to(tl.float32)


@jit
def _tile_mask(rows, groups, last_row, G: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr):
    in_group = (tl.arange(0, CGP) < CG)[None, None, :]
    return (rows < last_row)[:, None, None] & (groups < G)[None, :, None] & in_group


@jit
def _tile_moments(x, mask, count):
    """Mean and centred sum of squares of each group in a [rows, groups, CGP] tile holding `count` values a group."""
    mean = tl.sum(tl.sum(x, axis=0), axis=1) / count
    centred = tl.where(mask, x - mean[None, :, None], 0.0)
    return mean, tl.sum(tl.sum(centred * centred, axis=0), axis=1)


@jit
def _normalise_and_store(
    y_ptr, w_ptr, bias_ptr, x, mean, rstd, n, rows, groups, HW, C, mask,
    G: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    channel = groups[:, None] * CG + tl.arange(0, CGP)[None, :]
    valid = (groups < G)[:, None] & (tl.arange(0, CGP) < CG)[None, :]
    scale = tl.load(w_ptr + channel, mask=valid, other=0.0).to(tl.float32) * rstd[:, None]
    bias = tl.load(bias_ptr + channel, mask=valid, other=0.0).to(tl.float32)
    y = (x - mean[None, :, None]) * scale[None, :, :] + bias[None, :, :]
    if SILU:
        y = y * tl.sigmoid(y)
    out = y_ptr + n.to(tl.int64) * HW * C + rows[:, None, None] * C + channel[None, :, :]
    tl.store(out, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def _group_norm_kernel(
    a_ptr, b_ptr, w_ptr, bias_ptr, y_ptr, HW, C, CA, eps,
    G: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, GB: tl.constexpr, ROWS: tl.constexpr,
    SINGLE: tl.constexpr, CAT: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1)
    groups = tl.program_id(0) * GB + tl.arange(0, GB)
    rows = tl.arange(0, ROWS)
    if SINGLE:
        mask = _tile_mask(rows, groups, HW, G, CG, CGP)
        x = _load_tile(a_ptr, b_ptr, n, rows, groups, HW, C, CA, mask, CG, CGP, CAT)
        mean, m2 = _tile_moments(x, mask, HW * CG * 1.0)
        rstd = 1.0 / tl.sqrt(m2 / (HW * CG) + eps)
        _normalise_and_store(
            y_ptr, w_ptr, bias_ptr, x, mean, rstd, n, rows, groups, HW, C, mask, G, CG, CGP, SILU
        )  # fmt: skip
    else:
        mean = tl.zeros([GB], dtype=tl.float32)
        m2 = tl.zeros([GB], dtype=tl.float32)
        for start in range(0, HW, ROWS):
            mask = _tile_mask(start + rows, groups, HW, G, CG, CGP)
            x = _load_tile(a_ptr, b_ptr, n, start + rows, groups, HW, C, CA, mask, CG, CGP, CAT)
            count = tl.minimum(HW - start, ROWS) * CG * 1.0
            before = start * CG * 1.0
            tile_mean, tile_m2 = _tile_moments(x, mask, count)
            delta = tile_mean - mean
            mean += delta * (count / (before + count))
            m2 += tile_m2 + delta * delta * (before * count / (before + count))
        rstd = 1.0 / tl.sqrt(m2 / (HW * CG) + eps)
        for start in range(0, HW, ROWS):
            mask = _tile_mask(start + rows, groups, HW, G, CG, CGP)
            x = _load_tile(a_ptr, b_ptr, n, start + rows, groups, HW, C, CA, mask, CG, CGP, CAT)
            _normalise_and_store(
                y_ptr, w_ptr, bias_ptr, x, mean, rstd, n, start + rows, groups, HW, C, mask, G, CG, CGP, SILU
            )  # fmt: skip


@jit
def _chunk_moments_kernel(
    a_ptr, b_ptr, mean_ptr, m2_ptr, HW, C, CA, rows_per_chunk, chunks,
    G: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, GB: tl.constexpr, ROWS: tl.constexpr, CAT: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0)
    n = tl.program_id(2)
    groups = tl.program_id(1) * GB + tl.arange(0, GB)
    first = chunk * rows_per_chunk
    last = tl.minimum(first + rows_per_chunk, HW)
    mean = tl.zeros([GB], dtype=tl.float32)
    m2 = tl.zeros([GB], dtype=tl.float32)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)
        mask = _tile_mask(rows, groups, last, G, CG, CGP)
        x = _load_tile(a_ptr, b_ptr, n, rows, groups, HW, C, CA, mask, CG, CGP, CAT)
        count = tl.minimum(last - start, ROWS) * CG * 1.0
        before = (start - first) * CG * 1.0
        tile_mean, tile_m2 = _tile_moments(x, mask, count)
        delta = tile_mean - mean
        mean += delta * (count / (before + count))
        m2 += tile_m2 + delta * delta * (before * count / (before + count))
    out = (n * G + groups) * chunks + chunk
    tl.store(mean_ptr + out, mean, mask=groups < G)
    tl.store(m2_ptr + out, m2, mask=groups < G)


@jit
def _apply_kernel(
    a_ptr, b_ptr, w_ptr, bias_ptr, y_ptr, mean_ptr, m2_ptr, HW, C, CA, eps, rows_per_chunk, chunks,
    G: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, GB: tl.constexpr, ROWS: tl.constexpr,
    CHUNKS: tl.constexpr, CAT: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(2)
    groups = tl.program_id(1) * GB + tl.arange(0, GB)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mask = _tile_mask(rows, groups, HW, G, CG, CGP)
    x = _load_tile(a_ptr, b_ptr, n, rows, groups, HW, C, CA, mask, CG, CGP, CAT)

    chunk = tl.arange(0, CHUNKS)
    moments = (n * G + groups)[:, None] * chunks + chunk[None, :]
    valid = (groups < G)[:, None] & (chunk < chunks)[None, :]
    chunk_mean = tl.load(mean_ptr + moments, mask=valid, other=0.0)
    chunk_m2 = tl.load(m2_ptr + moments, mask=valid, other=0.0)
    share = tl.minimum(HW - chunk * rows_per_chunk, rows_per_chunk).to(tl.float32) / HW
    share = tl.where(valid, share[None, :], 0.0)
    mean = tl.sum(chunk_mean * share, axis=1)
    delta = chunk_mean - mean[:, None]
    variance = tl.sum(chunk_m2, axis=1) / (HW * CG) + tl.sum(delta * delta * share, axis=1)
    rstd = 1.0 / tl.sqrt(variance + eps)
    _normalise_and_store(
        y_ptr, w_ptr, bias_ptr, x, mean, rstd, n, rows, groups, HW, C, mask, G, CG, CGP, SILU
    )  # fmt: skip


def _check(a: Tensor, b: Tensor | None, weight: Tensor, bias: Tensor, num_groups: int) -> tuple[int, int, int, int]:
    """N, HW, C, channels of a; asserts what the kernels rely on."""
    batch, channels_a, height, width = a.shape
    channels = channels_a if b is None else channels_a + b.shape[1]
    assert runs_kernels(a), "GroupNorm kernels need a CUDA tensor"
    assert a.is_contiguous(memory_format=torch.channels_last), f"x must be channels_last, has strides {a.stride()}"
    if b is not None:
        assert b.is_contiguous(memory_format=torch.channels_last), f"b must be channels_last, has strides {b.stride()}"
        assert b.dtype == a.dtype and (b.shape[0], *b.shape[2:]) == (batch, height, width)
    assert channels % num_groups == 0 and weight.numel() == bias.numel() == channels
    assert weight.is_contiguous() and bias.is_contiguous()
    assert height * width * channels < 2**31, "one sample must stay below 2^31 elements"
    return batch, height * width, channels, channels_a


def one_kernel_is_single_tile(hw: int, channels_per_group: int) -> bool:
    return next_power_of_2(hw) * next_power_of_2(channels_per_group) <= ONE_TILE_ELEMENTS


def launch_one_kernel(
    a: Tensor,
    b: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    batch, hw, channels, channels_a = _check(a, b, weight, bias, num_groups)
    per_group = channels // num_groups
    padded = next_power_of_2(per_group)
    single = one_kernel_is_single_tile(hw, per_group)
    rows = next_power_of_2(hw) if single else max(16, 8192 // padded)
    y = empty_channels_last((batch, channels, *a.shape[2:]), a)
    _group_norm_kernel[(num_groups, batch)](
        a, a if b is None else b, weight, bias, y, hw, channels, channels_a, eps,
        G=num_groups, CG=per_group, CGP=padded, GB=1, ROWS=rows, SINGLE=single, CAT=b is not None, SILU=silu,
        num_warps=min(16, max(1, rows * padded // 1024)),
    )  # fmt: skip
    return y


def launch_two_kernels(
    a: Tensor,
    b: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    batch, hw, channels, channels_a = _check(a, b, weight, bias, num_groups)
    per_group = channels // num_groups
    padded = next_power_of_2(per_group)
    # At least 64 neighbouring channels (128 bytes) a row, so that memory is read in whole lines.
    block = min(next_power_of_2(max(1, 64 // per_group)), next_power_of_2(num_groups))
    rows = max(8, 4096 // (block * padded))
    columns = triton.cdiv(num_groups, block)
    wanted = triton.cdiv(4 * multiprocessors(a), batch * columns)
    rows_per_chunk = rows * triton.cdiv(hw, rows * min(MAX_CHUNKS, max(1, wanted)))
    chunks = triton.cdiv(hw, rows_per_chunk)
    mean = torch.empty((2, batch, num_groups, chunks), dtype=torch.float32, device=a.device)
    shape = {"G": num_groups, "CG": per_group, "CGP": padded, "GB": block, "ROWS": rows, "CAT": b is not None}
    second = a if b is None else b
    _chunk_moments_kernel[(chunks, columns, batch)](
        a, second, mean[0], mean[1], hw, channels, channels_a, rows_per_chunk, chunks, **shape, num_warps=4
    )
    y = empty_channels_last((batch, channels, *a.shape[2:]), a)
    _apply_kernel[(triton.cdiv(hw, rows), columns, batch)](
        a, second, weight, bias, y, mean[0], mean[1], hw, channels, channels_a, eps, rows_per_chunk, chunks,
        **shape, CHUNKS=MAX_CHUNKS, SILU=silu, num_warps=4,
    )  # fmt: skip
    return y
