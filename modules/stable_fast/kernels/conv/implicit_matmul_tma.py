"""Triton convolution for Hopper: an implicit matrix product whose tiles the TMA unit copies, without masks.

A tile of output pixels is a box [TN, TH, TW] of (sample, row, column). Its inputs for one tap are the same box, shifted
by the tap. The unit loads a box from the NHWC image by its corner, with zeros for anything outside the image.
The product is W x X^T with an accumulator [channels, pixels]. Triton can multiply a reshaped box directly from shared
memory only as the right operand; as the left operand, it would go through registers.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from modules.stable_fast.kernels.conv.implicit_matmul import (
    MAX_SPLITS,
    Epilogue,
    check_operands,
    epilogue_arguments,
    finish,
    launch_reduce_splits,
)
from modules.stable_fast.kernels.devices import multiprocessors, runs_tma_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.scaled.scales import Scales, is_integer
from modules.stable_fast.kernels.triton_import import TensorDescriptor, jit, tl, triton

# The bytes of a row that can be swizzled in shared memory: 64 channels of 16 bits, or 128 of 8.
DEPTH_BYTES = 128


class TmaConvTile(NamedTuple):
    """Output channels and pixels per tile, warps per program, and load pipeline stages."""

    channels: int
    pixels: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return f"tma_{self.channels}x{self.pixels}"


# The last three leave room for a second program on each multiprocessor, which computes while the first one stores.
TMA_CONV_TILES = (TmaConvTile(128, 256, 8, 4), TmaConvTile(128, 128, 8, 3), TmaConvTile(64, 128, 4, 4))


@jit
def _tma_conv_kernel(
    x_desc, w_desc, scale_ptr, channel_scale_ptr, bias_ptr, vector_ptr, residual_ptr, y_ptr, N, C, OC, OH, OW, PAD,
    vector_stride, steps_per_split, KH: tl.constexpr, KW: tl.constexpr, TN: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, SUBPIXEL: tl.constexpr,
    INTEGER: tl.constexpr, SCALED: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_VECTOR: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    BP: tl.constexpr = TN * TH * TW
    channel_tiles = tl.cdiv(OC, BC)
    channel = tl.program_id(0) % channel_tiles * BC
    box = tl.program_id(0) // channel_tiles
    across = tl.cdiv(OW, TW)
    down = tl.cdiv(OH, TH)
    sample = box // (across * down) * TN
    top = box // across % down * TH
    left = box % across * TW
    blocks = tl.cdiv(C, BK)
    first, last = 0, KH * KW * blocks
    y_in = top - PAD
    x_in = left - PAD
    w_row = channel
    parity = 0
    if SUBPIXEL:
        parity = tl.program_id(1)
        y_in += parity // 2
        x_in += parity % 2
        w_row += parity * OC
    elif SPLIT:
        first = tl.program_id(1) * steps_per_split
        last = tl.minimum(first + steps_per_split, last)
    acc = tl.zeros((BC, BP), dtype=tl.int32 if INTEGER else tl.float32)
    for step in range(first, last):
        tap = step // blocks
        c = (step - tap * blocks) * BK
        ky = tap // KW
        w = w_desc.load([tap, w_row, c]).reshape(BC, BK)
        x = x_desc.load([sample, y_in + ky, x_in + tap - ky * KW, c]).reshape(BP, BK)
        acc = tl.dot(w, x.T, acc, out_dtype=acc.dtype)
    acc = acc.T
    within = tl.arange(0, BP)
    columns = channel + tl.arange(0, BC)
    sample += within // (TH * TW)
    oy = top + within // TW % TH
    ox = left + within % TW
    mask = ((sample < N) & (oy < OH) & (ox < OW))[:, None] & (columns < OC)[None, :]
    if SPLIT:
        rows = ((tl.program_id(1) * N + sample) * OH + oy) * OW + ox
        tl.store(y_ptr + rows[:, None] * OC + columns[None, :], acc.to(tl.float32), mask=mask)
    else:
        if SUBPIXEL:
            pixel = (sample * 2 * OH + 2 * oy + parity // 2) * (2 * OW) + 2 * ox + parity % 2
        else:
            pixel = (sample * OH + oy) * OW + ox
        offset = pixel[:, None] * OC + columns[None, :]
        acc = finish(
            acc, scale_ptr, channel_scale_ptr + parity * OC, bias_ptr, vector_ptr, residual_ptr, sample, columns,
            offset, mask, OC, vector_stride, SCALED, HAS_BIAS, HAS_VECTOR, HAS_RESIDUAL, ACTIVATION,
        )  # fmt: skip
        tl.store(y_ptr + offset, acc.to(y_ptr.dtype.element_ty), mask=mask)


class Box(NamedTuple):
    """A tile of pixels: samples, rows, columns."""

    samples: int
    rows: int
    columns: int

    def number_over(self, batch: int, height: int, width: int) -> int:
        """How many such boxes cover a batch of images."""
        return triton.cdiv(batch, self.samples) * triton.cdiv(height, self.rows) * triton.cdiv(width, self.columns)


def _powers_of_2(up_to: int) -> list[int]:
    return [1 << i for i in range(up_to.bit_length())]


@cache
def choose_box(pixels: int, batch: int, height: int, width: int) -> Box:
    """The shape that needs the fewest boxes. Ties go to few samples, then near-square, to share compiled kernels."""
    sizes = _powers_of_2(pixels)
    boxes = [Box(pixels // (r * c), r, c) for r in sizes for c in sizes if r * c <= pixels]
    return min(boxes, key=lambda b: (b.number_over(batch, height, width), b.samples, abs(b.columns - 1.5 * b.rows)))


# Per microsecond on an H100 or H200, for one multiprocessor: operations on 16 bits (twice as many on 8), and bytes from
# the L2 cache; for the whole GPU: bytes of partial sums written or read. Then the cost of a program and of a launch.
FLOPS, TILE_BYTES, SUM_BYTES = 6.0e6, 60e3, 4.0e6
PROGRAM_US, LAUNCH_US = 1.5, 2.0


def predict_microseconds(tile: TmaConvTile, tiles: int, steps: int, splits: int, processors: int) -> float:
    """A rough estimate: the busiest multiprocessor's steps, limited by arithmetic or L2, plus the pass over sums."""
    area = tile.channels * tile.pixels
    step = max(area * DEPTH_BYTES / FLOPS, (tile.channels + tile.pixels) * DEPTH_BYTES / TILE_BYTES)
    busiest = triton.cdiv(tiles * splits, processors)
    time = busiest * (triton.cdiv(steps, splits) * step + PROGRAM_US)
    return time if splits == 1 else time + LAUNCH_US + 2 * 4 * splits * tiles * area / SUM_BYTES


@cache
def choose_tma_splits(tile: TmaConvTile, tiles: int, steps: int, processors: int) -> int:
    """How many parts to split the depth into, so that few multiprocessors idle in the last wave of programs."""
    candidates = range(1, min(MAX_SPLITS, steps) + 1)
    return min(candidates, key=lambda splits: predict_microseconds(tile, tiles, steps, splits, processors))


def _descriptors(x: Tensor, weight: Tensor, box: Box, channels: int) -> tuple[TensorDescriptor, TensorDescriptor]:
    """The image as [N, H, W, C] and the weight as [taps, Cout, Cin], with the box to copy from each."""
    batch, depth, height, width = x.shape
    rows, _, kh, kw = weight.shape
    x_strides = [height * width * depth, width * depth, depth, 1]
    w_strides = [depth, kh * kw * depth, 1]
    return (
        TensorDescriptor(x, [batch, height, width, depth], x_strides, [*box, depth_of(x)]),
        TensorDescriptor(weight, [kh * kw, rows, depth], w_strides, [1, channels, depth_of(x)]),
    )


def depth_of(x: Tensor) -> int:
    """How many channels a tile is deep."""
    return DEPTH_BYTES // x.element_size()


def _require(x: Tensor, weight: Tensor) -> None:
    if not runs_tma_kernels(x):
        raise Unsupported("copying tiles by descriptor was only tested on compute capability 9.0 (Hopper)")
    if x.shape[1] * x.element_size() % 16 or x.data_ptr() % 16 or weight.data_ptr() % 16:
        raise Unsupported(
            f"copying tiles by descriptor needs rows of a multiple of 16 bytes, not {x.shape[1]} channels"
        )


def launch_tma_conv(
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: int,
    padding: int,
    tile: TmaConvTile,
    *,
    splits: int | None = None,
) -> Tensor:
    """The convolution with its epilogue. Without `splits`, the depth is split enough to keep the GPU busy."""
    _require(x, weight)
    if stride != 1:
        raise Unsupported("copying tiles by descriptor serves stride 1 only")
    batch, channels, height, width = x.shape
    out_channels, _, kh, kw = weight.shape
    oh, ow = height + 2 * padding - kh + 1, width + 2 * padding - kw + 1
    y = epilogue.empty_result(x, (batch, out_channels, oh, ow))
    check_operands(x, weight, y, epilogue)
    box = choose_box(tile.pixels, batch, oh, ow)
    tiles = box.number_over(batch, oh, ow) * triton.cdiv(out_channels, tile.channels)
    steps = kh * kw * triton.cdiv(channels, depth_of(x))
    if splits is None:
        splits = choose_tma_splits(tile, tiles, steps, multiprocessors(x))
    per_split = triton.cdiv(steps, splits)
    splits = triton.cdiv(steps, per_split)
    target, inside = y, epilogue
    if splits > 1:
        target = torch.empty((splits, batch * oh * ow, out_channels), dtype=torch.float32, device=x.device)
        inside = Epilogue()
    flags, pointers, vector_stride = epilogue_arguments(inside, y)
    launch_kernel(
        _tma_conv_kernel, (tiles, splits),
        *_descriptors(x, weight, box, tile.channels), *pointers, target, batch, channels, out_channels, oh, ow,
        padding, vector_stride, per_split if splits > 1 else 0, KH=kh, KW=kw, TN=box.samples, TH=box.rows,
        TW=box.columns, BC=tile.channels, BK=depth_of(x), SPLIT=splits > 1, SUBPIXEL=False, INTEGER=is_integer(x),
        **flags, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    if splits > 1:
        launch_reduce_splits(target, y, epilogue)
    return y


def launch_tma_subpixel_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: TmaConvTile, scales: Scales | None = None
) -> Tensor:
    """Nearest 2x upsampling and a 3x3 convolution, with the weight [4 Cout, Cin, 2, 2] of upsample_conv2d.py."""
    _require(x, weight)
    batch, channels, height, width = x.shape
    out_channels = weight.shape[0] // 4
    epilogue = Epilogue(bias=bias, scales=scales)
    y = epilogue.empty_result(x, (batch, out_channels, 2 * height, 2 * width))
    check_operands(x, weight, y, epilogue)
    box = choose_box(tile.pixels, batch, height, width)
    flags, pointers, vector_stride = epilogue_arguments(epilogue, y)
    launch_kernel(
        _tma_conv_kernel, (box.number_over(batch, height, width) * triton.cdiv(out_channels, tile.channels), 4),
        *_descriptors(x, weight, box, tile.channels), *pointers, y, batch, channels, out_channels, height, width,
        1, vector_stride, 0, KH=2, KW=2, TN=box.samples, TH=box.rows, TW=box.columns, BC=tile.channels, BK=depth_of(x),
        SPLIT=False, SUBPIXEL=True, INTEGER=is_integer(x), **flags, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y
