"""Triton kernels and launchers of GroupNorm(+SiLU) in NHWC memory, over one tensor or the concatenation of two.

`launch_one_kernel`, for small pictures: a program keeps one group of one sample in registers.
`launch_two_kernels`: the first kernel computes means and centred sums of squares of chunks of rows. In the second
kernel, every program merges the chunks that it needs and normalises its rows. Tiles are [rows, channels], so that
memory is read 16 bytes at a time for any group size. With a scale, the result has 8 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.activations import silu_in_kernel
from modules.stable_fast.kernels.devices import multiprocessors, overlaps_launches, runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import MOST_ELEMENTS, MOST_GRID_ROWS, Unsupported
from modules.stable_fast.kernels.scaled.kinds import reciprocal, rounded_in_kernel
from modules.stable_fast.kernels.scaled.scales import Eight, image_for
from modules.stable_fast.kernels.triton_import import cuda, jit, jit_for_any, next_power_of_2, tl, triton

# How many elements of one group, padded to powers of two, fit in one program's registers.
ONE_TILE_ELEMENTS = 32768
# Elements and channels per tile, for the kernel that only reads (8 warps) and the kernel that also writes (4 warps).
# Both keep four 16-byte loads per thread in flight. The first takes as many whole groups as fit, the second whole cache
# lines.
MOMENTS_TILE, MOMENTS_CHANNELS = 8192, 128
APPLY_TILE, APPLY_CHANNELS = 4096, 64
# How many programs fit in a multiprocessor's registers at once. The work is split over a single wave of programs.
MOMENTS_RESIDENT, APPLY_RESIDENT = 3, 5
# Every program of the second kernel reads all chunks of its groups, so there are few chunks unless it has many rows.
MIN_CHUNKS, ROWS_PER_CHUNK = 64, 512
# How many chunks the second kernel reads at a time. There are only two values, so that all picture sizes share two
# compiled kernels. With many groups the number is lower: chunks times groups are at most 4 per thread.
FEW_CHUNKS, MANY_CHUNKS = 16, 64
MERGE_TILE = 512


@jit
def _load(a_ptr, b_ptr, n, rows, channels, HW, C, CA, mask, CAT: tl.constexpr):
    """[rows, channels] of sample n in the tensors' dtype. Channels below CA come from a, the others from b."""
    if CAT:
        CB = C - CA
        a = a_ptr + n.to(tl.int64) * HW * CA + (rows[:, None] * CA + channels[None, :])
        b = b_ptr + n.to(tl.int64) * HW * CB + (rows[:, None] * CB + (channels - CA)[None, :])
        return tl.load(tl.where((channels < CA)[None, :], a, b), mask=mask, other=0.0)
    return tl.load(a_ptr + n.to(tl.int64) * HW * C + (rows[:, None] * C + channels[None, :]), mask=mask, other=0.0)


@jit
def _normalised(x, mean, scale, bias, SILU: tl.constexpr):
    y = (x - mean) * scale + bias
    if SILU:
        y = silu_in_kernel(y)
    return y


@jit
def _store(at, y, inverse, mask, EIGHT: tl.constexpr, INTEGER: tl.constexpr):
    """Stores y, in 8 bits as y * inverse if EIGHT."""
    if EIGHT:
        y = rounded_in_kernel(y * inverse, INTEGER, WITHIN=False)
    tl.store(at, y.to(at.dtype.element_ty), mask=mask)


@jit_for_any("HW")
def _group_norm_kernel(
    a_ptr, b_ptr, w_ptr, bias_ptr, scale_ptr, y_ptr, HW, C, CA, eps,
    CG: tl.constexpr, CGP: tl.constexpr, ROWS: tl.constexpr, CAT: tl.constexpr, SILU: tl.constexpr,
    EIGHT: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1)
    column = tl.arange(0, CGP)
    channels = tl.program_id(0) * CG + column
    rows = tl.arange(0, ROWS)
    mask = (rows < HW)[:, None] & (column < CG)[None, :]
    weight = tl.load(w_ptr + channels, mask=column < CG, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=column < CG, other=0.0)
    inverse = 1.0
    if EIGHT:
        inverse = reciprocal(tl.load(scale_ptr))
    tl.debug_barrier()  # otherwise ptxas loads these only after x has arrived
    x = _load(a_ptr, b_ptr, n, rows, channels, HW, C, CA, mask, CAT).to(tl.float32)
    mean = tl.sum(x) / (HW * CG)
    centred = tl.where(mask, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred) / (HW * CG) + eps)
    y = _normalised(x, mean, (weight.to(tl.float32) * rstd)[None, :], bias.to(tl.float32)[None, :], SILU)
    out = y_ptr + n.to(tl.int64) * HW * C + (rows[:, None] * C + channels[None, :])
    _store(out, y, inverse, mask, EIGHT, INTEGER)


@jit_for_any("HW", "rows_per_chunk")
def _chunk_moments_kernel(
    a_ptr, b_ptr, mean_ptr, m2_ptr, HW, C, CA, rows_per_chunk, stride,
    G: tl.constexpr, CG: tl.constexpr, GB: tl.constexpr, GBP: tl.constexpr, BLOCK_C: tl.constexpr,
    ROWS: tl.constexpr, CAT: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Sums each channel about its own first value in the chunk, so that a large mean costs no precision.

    The first value may be far from the mean, but it is one of the values, so the rounding error is at most about (rows
    of the chunk) x 2^-24 of the variance.
    """
    chunk = tl.program_id(0)
    n = tl.program_id(2)
    column = tl.arange(0, BLOCK_C)
    channels = tl.program_id(1) * (GB * CG) + column
    inside = ((column < GB * CG) & (channels < C))[None, :]
    first = chunk * rows_per_chunk
    last = tl.minimum(first + rows_per_chunk, HW)
    total = tl.zeros([ROWS // 4, BLOCK_C], dtype=tl.float32)
    squares = tl.zeros([ROWS // 4, BLOCK_C], dtype=tl.float32)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)
        mask = (rows < last)[:, None] & inside
        x = _load(a_ptr, b_ptr, n, rows, channels, HW, C, CA, mask, CAT)
        pivot = _load(a_ptr, b_ptr, n, first + tl.arange(0, 1), channels, HW, C, CA, inside, CAT)
        tl.debug_barrier()  # otherwise ptxas saves registers and waits for one load before it issues the next
        centred = tl.where(mask, x.to(tl.float32) - pivot.to(tl.float32), 0.0)
        centred = tl.reshape(centred, [4, ROWS // 4, BLOCK_C])  # sums the four loads of a thread at once
        total += tl.sum(centred, axis=0)
        squares += tl.sum(centred * centred, axis=0)
    if OVERLAP:
        cuda.gdc_launch_dependents()

    pivot = _load(a_ptr, b_ptr, n, first + tl.arange(0, 1), channels, HW, C, CA, inside, CAT).to(tl.float32)
    count = (last - first).to(tl.float32)
    total = tl.sum(total, axis=0)[None, :] / count
    channel_mean = pivot + total
    channel_m2 = tl.sum(squares, axis=0)[None, :] - total * total * count
    slot = tl.arange(0, GBP)
    belongs = (slot[:, None] == (column // CG)[None, :]) & inside
    mean = tl.sum(tl.where(belongs, channel_mean, 0.0), axis=1) / CG
    delta = channel_mean - mean[:, None]
    m2 = tl.sum(tl.where(belongs, channel_m2 + delta * delta * count, 0.0), axis=1)
    groups = tl.program_id(1) * GB + slot
    valid = (slot < GB) & (groups < G)
    out = (n * G + groups) * stride + chunk
    tl.store(mean_ptr + out, mean, mask=valid)
    tl.store(m2_ptr + out, m2, mask=valid)


@jit_for_any("HW", "rows_per_chunk", "chunks", "rows_per_program")
def _apply_kernel(
    a_ptr, b_ptr, w_ptr, bias_ptr, scale_ptr, y_ptr, mean_ptr, m2_ptr, HW, C, CA, eps, rows_per_chunk, chunks, stride,
    rows_per_program, G: tl.constexpr, CG: tl.constexpr, BLOCK_C: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr,
    CHUNKS: tl.constexpr, CAT: tl.constexpr, SILU: tl.constexpr, OVERLAP: tl.constexpr, EIGHT: tl.constexpr,
    INTEGER: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(2)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channels < C
    # Starts at the end, because the last rows read by the first kernel may still be in the L2 cache.
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * rows_per_program
    last = tl.minimum(first + rows_per_program, HW)
    rows = first + tl.arange(0, ROWS)
    mask = (rows < last)[:, None] & inside[None, :]
    x = _load(a_ptr, b_ptr, n, rows, channels, HW, C, CA, mask, CAT)
    weight = tl.load(w_ptr + channels, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channels, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0
    if EIGHT:
        inverse = reciprocal(tl.load(scale_ptr))
    if OVERLAP:
        cuda.gdc_wait()  # for the chunk moments; the loads above do not depend on the first kernel
    else:
        tl.debug_barrier()  # otherwise ptxas moves the loads above behind the wait for those below

    groups = tl.program_id(1) * BLOCK_C // CG + tl.arange(0, SLOTS)
    moments = ((n * G + groups) * stride)[:, None]
    pivot = tl.load(mean_ptr + moments, mask=(groups < G)[:, None], other=0.0)
    shift = tl.zeros([SLOTS, CHUNKS], dtype=tl.float32)
    squares = tl.zeros([SLOTS, CHUNKS], dtype=tl.float32)
    for start in range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        # Memory is allocated up to `stride`. Masking only the groups lets the compiler load four chunks at once.
        chunk_mean = tl.load(mean_ptr + moments + chunk[None, :], mask=(groups < G)[:, None], other=0.0)
        chunk_m2 = tl.load(m2_ptr + moments + chunk[None, :], mask=(groups < G)[:, None], other=0.0)
        valid = (chunk < chunks)[None, :]
        share = tl.minimum(HW - chunk * rows_per_chunk, rows_per_chunk).to(tl.float32)[None, :] / HW
        delta = tl.where(valid, chunk_mean - pivot, 0.0)
        shift += delta * share
        squares += delta * delta * share + tl.where(valid, chunk_m2, 0.0) / (HW * CG)
    group_shift = tl.sum(shift, axis=1)
    group_mean = tl.sum(pivot, axis=1) + group_shift
    group_rstd = tl.rsqrt(tl.sum(squares, axis=1) - group_shift * group_shift + eps)

    belongs = groups[:, None] == (channels // CG)[None, :]
    mean = tl.sum(tl.where(belongs, group_mean[:, None], 0.0), axis=0)[None, :]
    scale = (weight * tl.sum(tl.where(belongs, group_rstd[:, None], 0.0), axis=0))[None, :]
    out = y_ptr + n.to(tl.int64) * HW * C
    for _ in range(first, last, ROWS):
        here = out + (rows[:, None] * C + channels[None, :])
        rows += ROWS
        following_mask = (rows < last)[:, None] & inside[None, :]
        following = _load(a_ptr, b_ptr, n, rows, channels, HW, C, CA, following_mask, CAT)
        y = _normalised(x.to(tl.float32), mean, scale, bias[None, :], SILU)
        _store(here, y, inverse, mask, EIGHT, INTEGER)
        x, mask = following, following_mask


def _check(a: Tensor, b: Tensor | None, weight: Tensor, bias: Tensor, num_groups: int) -> tuple[int, int, int, int]:
    """Checks the kernels' assumptions. Returns N, HW, C, and the channels of a."""
    batch, channels_a, height, width = a.shape
    channels = channels_a if b is None else channels_a + b.shape[1]
    assert runs_kernels(a), "GroupNorm kernels need a CUDA tensor"
    assert a.is_contiguous(memory_format=torch.channels_last), f"x must be channels_last, has strides {a.stride()}"
    if b is not None:
        assert b.is_contiguous(memory_format=torch.channels_last), f"b must be channels_last, has strides {b.stride()}"
        assert b.dtype == a.dtype and (b.shape[0], *b.shape[2:]) == (batch, height, width)
    assert channels % num_groups == 0 and weight.numel() == bias.numel() == channels
    assert weight.is_contiguous() and bias.is_contiguous()
    if height * width * channels > MOST_ELEMENTS or batch > MOST_GRID_ROWS:
        raise Unsupported(f"{batch} samples of {height} x {width} x {channels} are more than the kernels can number")
    return batch, height * width, channels, channels_a


def padded_group(hw: int, channels_per_group: int) -> int:
    """Elements of a tile that covers one group of one sample."""
    return next_power_of_2(hw) * next_power_of_2(channels_per_group)


def launch_one_kernel(
    a: Tensor,
    b: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    eight: Eight | None = None,
) -> Tensor:
    batch, hw, channels, channels_a = _check(a, b, weight, bias, num_groups)
    per_group = channels // num_groups
    elements = padded_group(hw, per_group)
    assert elements <= ONE_TILE_ELEMENTS, f"a group of {hw} x {per_group} does not fit in one program"
    y, scale, flags = image_for(a, channels, eight)
    launch_kernel(
        _group_norm_kernel, (num_groups, batch),
        a, a if b is None else b, weight, bias, scale, y, hw, channels, channels_a, eps,
        CG=per_group, CGP=next_power_of_2(per_group), ROWS=next_power_of_2(hw), CAT=b is not None, SILU=silu, **flags,
        num_warps=min(16, max(1, elements // 512)),
    )  # fmt: skip
    return y


def _rows_per_program(x: Tensor, columns: int, tile_rows: int, resident: int, most: int) -> int:
    """Rows of whole tiles for one wave of programs. At most `most` of them share a column of one sample."""
    batch, _, height, width = x.shape
    programs = min(most, max(1, resident * multiprocessors(x) // (columns * batch)))
    return tile_rows * triton.cdiv(height * width, tile_rows * programs)


def launch_two_kernels(
    a: Tensor,
    b: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    num_groups: int,
    eps: float,
    silu: bool,
    eight: Eight | None = None,
) -> Tensor:
    batch, hw, channels, channels_a = _check(a, b, weight, bias, num_groups)
    second, per_group = a if b is None else b, channels // num_groups
    common = {"G": num_groups, "CG": per_group, "CAT": b is not None, "OVERLAP": overlaps_launches(a)}

    group_block = min(num_groups, max(1, MOMENTS_CHANNELS // per_group))
    block, columns = next_power_of_2(group_block * per_group), triton.cdiv(num_groups, group_block)
    tile_rows, most = max(4, MOMENTS_TILE // block), max(MIN_CHUNKS, hw // ROWS_PER_CHUNK)
    rows_per_chunk = _rows_per_program(a, columns, tile_rows, MOMENTS_RESIDENT, most)
    chunks = triton.cdiv(hw, rows_per_chunk)
    at_once = FEW_CHUNKS if chunks <= FEW_CHUNKS else MANY_CHUNKS
    # Padded, so that the chunks of each group begin at an address suitable for vectorised loads.
    stride = at_once * triton.cdiv(chunks, at_once)
    mean, m2 = torch.empty((2, batch, num_groups, stride), dtype=torch.float32, device=a.device)
    launch_kernel(
        _chunk_moments_kernel, (chunks, columns, batch),
        a, second, mean, m2, hw, channels, channels_a, rows_per_chunk, stride,
        GB=group_block, GBP=next_power_of_2(group_block), BLOCK_C=block, ROWS=tile_rows, num_warps=8, **common,
    )  # fmt: skip

    block = min(APPLY_CHANNELS, next_power_of_2(channels))
    tile_rows, columns = APPLY_TILE // block, triton.cdiv(channels, block)
    rows = _rows_per_program(a, columns, tile_rows, APPLY_RESIDENT, hw)
    slots = next_power_of_2(block // per_group if block % per_group == 0 else (block - 2) // per_group + 2)
    y, scale, flags = image_for(a, channels, eight)
    launch_kernel(
        _apply_kernel, (triton.cdiv(hw, rows), columns, batch),
        a, second, weight, bias, scale, y, mean, m2, hw, channels, channels_a, eps, rows_per_chunk, chunks, stride,
        rows, BLOCK_C=block, ROWS=tile_rows, SLOTS=slots, CHUNKS=min(at_once, MERGE_TILE // slots), SILU=silu,
        num_warps=4, **flags, **common, **({"launch_pdl": True} if common["OVERLAP"] else {}),
    )  # fmt: skip
    return y
