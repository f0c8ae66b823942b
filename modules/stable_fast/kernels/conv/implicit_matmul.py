"""Triton convolution as an implicit matrix product: rows are output pixels, columns output channels, depth taps x Cin.

The input is NHWC, the weight [Cout, kh, kw, Cin] in memory (channels-last). The kernel accumulates in fp32 (with
HALF_SUMS, within a tile of the depth in fp16, see accumulation.py) and applies the epilogue in registers. If there are
few output tiles, programs share the depth (`splits` > 1): they write partial sums in fp32, which a second kernel adds
up before the epilogue. With SUBPIXEL, the weight has four 2x2 kernels, one for each parity of the output pixel (see
upsample_conv2d.py). With `Scales`, operands have 8 bits, and the sums are scaled first in the epilogue.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.stable_fast.kernels.accumulation import sums_in_half
from modules.stable_fast.kernels.activations import ACTIVATIONS, activate_in_kernel
from modules.stable_fast.kernels.devices import multiprocessors, runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.linear.matmul import Tile, add_product
from modules.stable_fast.kernels.memory_layout import empty_channels_last
from modules.stable_fast.kernels.refusals import require_32_bit
from modules.stable_fast.kernels.scaled.scales import Scales, is_integer, scale_pointers
from modules.stable_fast.kernels.triton_import import jit, tl, triton

CONV_TILES = (Tile(128, 64, 64, 4, 3), Tile(128, 128, 64, 8, 3), Tile(64, 64, 64, 4, 4))
MAX_SPLITS = 16


@dataclass(frozen=True)
class Epilogue:
    """The operations that follow the product: y = act(product * scales + bias + vector[sample] + residual)."""

    bias: Tensor | None = None
    vector: Tensor | None = None
    residual: Tensor | None = None
    activation: str = "none"
    scales: Scales | None = None

    def empty_result(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """An image for the result from `x`, NHWC in memory."""
        return empty_channels_last(shape, x, None if self.scales is None else self.scales.dtype)


@jit
def finish(
    acc, scale_ptr, channel_scale_ptr, bias_ptr, vector_ptr, residual_ptr, sample, columns, offset, mask, OC,
    vector_stride, SCALED: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_VECTOR: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    if SCALED:
        channel_scale = tl.load(channel_scale_ptr + columns, mask=columns < OC, other=0.0)
        acc = acc.to(tl.float32) * (tl.load(scale_ptr) * channel_scale)[None, :]
    if HAS_BIAS:
        acc += tl.load(bias_ptr + columns, mask=columns < OC, other=0.0).to(tl.float32)[None, :]
    if HAS_VECTOR:
        at = sample[:, None] * vector_stride + columns[None, :]
        acc += tl.load(vector_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        acc += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    return activate_in_kernel(acc, ACTIVATION)


@jit
def _conv_kernel(
    x_ptr, w_ptr, scale_ptr, channel_scale_ptr, bias_ptr, vector_ptr, residual_ptr, y_ptr, M, H, W, C, OC, OH, OW,
    STRIDE, PAD, vector_stride, steps_per_split,
    KH: tl.constexpr, KW: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN_C: tl.constexpr,
    SPLIT: tl.constexpr, SUBPIXEL: tl.constexpr, SCALED: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_VECTOR: tl.constexpr, HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr, HALF_SUMS: tl.constexpr,
    INTEGER: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    sample = rows // (OH * OW)
    oy = rows // OW % OH
    ox = rows % OW
    top = oy * STRIDE - PAD
    left = ox * STRIDE - PAD
    blocks = tl.cdiv(C, BK)
    first = 0
    last = KH * KW * blocks
    parity = 0
    if SUBPIXEL:
        parity = tl.program_id(2)
        top = oy - 1 + parity // 2
        left = ox - 1 + parity % 2
    elif SPLIT:
        first = tl.program_id(2) * steps_per_split
        last = tl.minimum(first + steps_per_split, last)
    origin = ((sample * H + top) * W + left) * C
    weight_row = (parity * OC + tl.minimum(columns, OC - 1)) * (KH * KW * C)
    acc = tl.zeros((BM, BN), dtype=tl.int32 if INTEGER else tl.float32)
    for step in range(first, last):
        tap = step // blocks
        c = (step - tap * blocks) * BK
        ky = tap // KW
        kx = tap - ky * KW
        inside = (rows < M) & (top + ky >= 0) & (top + ky < H) & (left + kx >= 0) & (left + kx < W)
        x_tile = x_ptr + (origin + (ky * W + kx) * C + c)[:, None] + depth[None, :]
        w_tile = w_ptr + (weight_row + tap * C + c)[None, :] + depth[:, None]
        if EVEN_C:
            x = tl.load(x_tile, mask=inside[:, None], other=0.0)
            w = tl.load(w_tile)
        else:
            x = tl.load(x_tile, mask=inside[:, None] & (c + depth < C)[None, :], other=0.0)
            w = tl.load(w_tile, mask=(c + depth < C)[:, None], other=0.0)
        acc = add_product(acc, x, w, HALF_SUMS)
    mask = (rows < M)[:, None] & (columns < OC)[None, :]
    if SPLIT:
        partial = (tl.program_id(2) * M + rows)[:, None] * OC + columns[None, :]
        tl.store(y_ptr + partial, acc.to(tl.float32), mask=mask)
    else:
        pixel = rows
        if SUBPIXEL:
            pixel = (sample * 2 * OH + 2 * oy + parity // 2) * (2 * OW) + 2 * ox + parity % 2
        offset = pixel[:, None] * OC + columns[None, :]
        acc = finish(
            acc, scale_ptr, channel_scale_ptr + parity * OC, bias_ptr, vector_ptr, residual_ptr, sample, columns,
            offset, mask, OC, vector_stride, SCALED, HAS_BIAS, HAS_VECTOR, HAS_RESIDUAL, ACTIVATION,
        )  # fmt: skip
        tl.store(y_ptr + offset, acc.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def _reduce_splits_kernel(
    partial_ptr, scale_ptr, channel_scale_ptr, bias_ptr, vector_ptr, residual_ptr, y_ptr, M, OC, per_sample,
    vector_stride, splits, BM: tl.constexpr, BN: tl.constexpr, SCALED: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_VECTOR: tl.constexpr, HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    mask = (rows < M)[:, None] & (columns < OC)[None, :]
    offset = rows[:, None] * OC + columns[None, :]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for split in range(0, splits):
        acc += tl.load(partial_ptr + split * M * OC + offset, mask=mask, other=0.0)
    acc = finish(
        acc, scale_ptr, channel_scale_ptr, bias_ptr, vector_ptr, residual_ptr, rows // per_sample, columns, offset,
        mask, OC, vector_stride, SCALED, HAS_BIAS, HAS_VECTOR, HAS_RESIDUAL, ACTIVATION,
    )  # fmt: skip
    tl.store(y_ptr + offset, acc.to(y_ptr.dtype.element_ty), mask=mask)


def launch_reduce_splits(sums: Tensor, y: Tensor, epilogue: Epilogue) -> None:
    """y = epilogue(sums.sum(0)), for fp32 partial sums [splits, N * OH * OW, Cout]."""
    splits, rows, channels = sums.shape
    flags, pointers, vector_stride = epilogue_arguments(epilogue, y)
    launch_kernel(
        _reduce_splits_kernel, (triton.cdiv(rows, 16), triton.cdiv(channels, 128)),
        sums, *pointers, y, rows, channels, y.shape[2] * y.shape[3], vector_stride, splits, BM=16, BN=128, **flags,
        num_warps=4,
    )  # fmt: skip


def choose_splits(tiles: int, steps: int, processors: int) -> int:
    """Enough splits to give every multiprocessor a program, with at least 8 steps of work in each."""
    return max(1, min(MAX_SPLITS, processors // tiles, steps // 8))


def check_operands(x: Tensor, weight: Tensor, y: Tensor, epilogue: Epilogue) -> None:
    assert runs_kernels(x) and weight.dtype == x.dtype
    assert x.is_contiguous(memory_format=torch.channels_last), f"x must be channels_last, has {x.stride()}"
    assert weight.is_contiguous(memory_format=torch.channels_last), f"weight must be channels_last: {weight.stride()}"
    require_32_bit(x, y, weight)
    bias, vector, residual = epilogue.bias, epilogue.vector, epilogue.residual
    assert bias is None or (bias.is_contiguous() and bias.numel() == y.shape[1])
    assert vector is None or (vector.stride(1) == 1 and vector.shape[0] in (1, y.shape[0]))
    assert residual is None or residual.is_contiguous(memory_format=torch.channels_last)
    assert residual is None or residual.shape == y.shape
    if epilogue.scales is not None:
        epilogue.scales.check(1, len(weight))


def launch_conv(
    x: Tensor, weight: Tensor, epilogue: Epilogue, stride: int, padding: int, tile: Tile, *, splits: int | None = None
) -> Tensor:
    """The convolution with its epilogue. Without `splits`, the depth is split enough to keep the GPU busy."""
    batch, channels, height, width = x.shape
    out_channels, _, kh, kw = weight.shape
    oh, ow = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    m = batch * oh * ow
    y = epilogue.empty_result(x, (batch, out_channels, oh, ow))
    check_operands(x, weight, y, epilogue)
    grid = (triton.cdiv(m, tile.m), triton.cdiv(out_channels, tile.n))
    steps = kh * kw * triton.cdiv(channels, tile.k)
    if splits is None:
        splits = choose_splits(grid[0] * grid[1], steps, multiprocessors(x))
    per_split = triton.cdiv(steps, splits)
    splits = triton.cdiv(steps, per_split)
    sums = y if splits == 1 else torch.empty((splits, m, out_channels), dtype=torch.float32, device=x.device)
    flags, pointers, vector_stride = epilogue_arguments(epilogue, y)
    launch_kernel(
        _conv_kernel, (*grid, splits),
        x, weight, *pointers, sums, m, height, width, channels, out_channels, oh, ow, stride, padding, vector_stride,
        per_split, KH=kh, KW=kw, BM=tile.m, BN=tile.n, BK=tile.k, EVEN_C=channels % tile.k == 0,
        SPLIT=splits > 1, SUBPIXEL=False, HALF_SUMS=sums_in_half(x), INTEGER=is_integer(x), **flags,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    if splits > 1:
        launch_reduce_splits(sums, y, epilogue)
    return y


def launch_subpixel_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile, scales: Scales | None = None
) -> Tensor:
    """Nearest 2x upsampling and a 3x3 convolution, with the prepared weight [4 Cout, Cin, 2, 2]."""
    batch, channels, height, width = x.shape
    out_channels = weight.shape[0] // 4
    epilogue = Epilogue(bias=bias, scales=scales)
    y = epilogue.empty_result(x, (batch, out_channels, 2 * height, 2 * width))
    check_operands(x, weight, y, epilogue)
    m = batch * height * width
    flags, pointers, vector_stride = epilogue_arguments(epilogue, y)
    launch_kernel(
        _conv_kernel, (triton.cdiv(m, tile.m), triton.cdiv(out_channels, tile.n), 4),
        x, weight, *pointers, y, m, height, width, channels, out_channels, height, width, 1, 1, vector_stride, 0,
        KH=2, KW=2, BM=tile.m, BN=tile.n, BK=tile.k, EVEN_C=channels % tile.k == 0, SPLIT=False, SUBPIXEL=True,
        HALF_SUMS=sums_in_half(x), INTEGER=is_integer(x), **flags, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y


def epilogue_arguments(epilogue: Epilogue, stand_in: Tensor) -> tuple[dict[str, int | bool], list[Tensor], int]:
    """Kernel flags, five pointers (`stand_in` for an absent operand), and the vector's stride between samples."""
    parts = (epilogue.bias, epilogue.vector, epilogue.residual)
    vector = epilogue.vector
    flags: dict[str, int | bool] = {
        "SCALED": epilogue.scales is not None,
        "HAS_BIAS": parts[0] is not None,
        "HAS_VECTOR": parts[1] is not None,
        "HAS_RESIDUAL": parts[2] is not None,
        "ACTIVATION": ACTIVATIONS[epilogue.activation],
    }
    vector_stride = 0 if vector is None or vector.shape[0] == 1 else vector.stride(0)
    pointers = [*scale_pointers(epilogue.scales, stand_in)[:2], *(stand_in if part is None else part for part in parts)]
    return flags, pointers, vector_stride
