"""3x3 convolution for Hopper that loads a pixel once for three taps: an implicit matrix product in Gluon.

A tile is 16 rows x 8 columns of pixels of one sample, by 128 or 160 output channels (160 divides every width of the
UNets, and gives 132 multiprocessors one tile each). Of a block of 64 channels, shifted by the column tap, 18 rows x 8
pixels are loaded; the three row taps multiply windows of it. Eight pixels are the 1024 bytes after which shared
memory's swizzle repeats, so every window starts a swizzle of its own and the matrix unit reads it as it lies.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from modules.stable_fast.kernels._conv_matmul import (
    MAX_SPLITS,
    Epilogue,
    check_operands,
    epilogue_arguments,
    finish,
    launch_reduce_splits,
)
from modules.stable_fast.kernels._conv_tma import FLOPS, LAUNCH_US, PROGRAM_US, SUM_BYTES
from modules.stable_fast.kernels._dispatch import Unsupported, empty_channels_last, is_hopper, multiprocessors
from modules.stable_fast.kernels._gluon import WINDOWS, TiledDescriptor, gl, gluon_jit, hopper, load_tile, mbarrier
from modules.stable_fast.kernels._triton import triton

PIXEL_ROWS, PIXEL_COLUMNS, DEPTH = 16, 8, 64


class HaloTile(NamedTuple):
    """Output channels as two powers of 2 (the second may be 0), slots of the x and of the weight pipeline."""

    channels: int
    more_channels: int
    x_slots: int
    w_slots: int

    @property
    def width(self) -> int:
        return self.channels + self.more_channels

    @property
    def name(self) -> str:
        return f"halo_{self.width}x128"


HALO_TILES = (HaloTile(128, 32, 3, 6), HaloTile(128, 0, 2, 4))
WARPS = 8


@gluon_jit
def _tile_origin(OC, H, W, N: gl.constexpr):
    """First output channel, sample, row and column of this program's tile: channels vary first, so they share x."""
    channel_tiles = gl.cdiv(OC, N)
    box = gl.program_id(0) // channel_tiles
    across = gl.cdiv(W, 8)
    down = gl.cdiv(H, 16)
    channel = gl.program_id(0) % channel_tiles * N
    return channel, box // (across * down), box // across % down * 16, box % across * 8


@gluon_jit
def _barriers(SLOTS: gl.constexpr):
    """One for each slot of a pipeline: complete when the bytes it was told to expect have arrived."""
    bars = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(SLOTS):
        mbarrier.init(bars.index(i), count=1)
    return bars


@gluon_jit
def _retire(x_bars, w_bars, X_SLOTS: gl.constexpr, W_SLOTS: gl.constexpr):
    """From here on shared memory may serve the stores; until here other warps' last products may still read it."""
    gl.thread_barrier()
    for i in gl.static_range(X_SLOTS):
        mbarrier.invalidate(x_bars.index(i))
    for i in gl.static_range(W_SLOTS):
        mbarrier.invalidate(w_bars.index(i))


@gluon_jit
def _load_x(
    x_desc, edge_desc, buffer, bars, group, wanted, sample, top, left, first, SLOTS: gl.constexpr, BOX: gl.constexpr
):
    """18 rows of 8 pixels, as 16 and 2, for column tap `group` % 3 of the split's channel block `group` // 3."""
    slot = group % SLOTS
    block = group // 3
    x = left + group - block * 3
    c = (first + block) * 64
    bar = bars.index(slot)
    mbarrier.expect(bar, 18 * 8 * 64 * 2, pred=wanted)
    body = buffer.index(slot * 18)._reinterpret(buffer.dtype, [1, 16, 8, 64], BOX)
    edge = buffer.index(slot * 18 + 16)._reinterpret(buffer.dtype, [1, 2, 8, 64], BOX)
    load_tile(x_desc, [sample, top, x, c], bar, body, pred=wanted)
    load_tile(edge_desc, [sample, top + 16, x, c], bar, edge, pred=wanted)


@gluon_jit
def _load_w(
    w1_desc, w2_desc, buffer1, buffer2, bars, step, wanted, row, first, C,
    SLOTS: gl.constexpr, N1: gl.constexpr, N2: gl.constexpr,
):  # fmt: skip
    """The weights of one tap and channel block: row tap `step` % 3 of the group `step` // 3."""
    slot = step % SLOTS
    group = step // 3
    block = group // 3
    tap = (step - group * 3) * 3 + group - block * 3
    at = tap * C + (first + block) * 64
    bar = bars.index(slot)
    mbarrier.expect(bar, (N1 + N2) * 64 * 2, pred=wanted)
    load_tile(w1_desc, [row, at], bar, buffer1.index(slot), pred=wanted)
    if N2 > 0:
        load_tile(w2_desc, [row + N1, at], bar, buffer2.index(slot), pred=wanted)


@gluon_jit
def _store(
    acc, N: gl.constexpr, channel, sample, top, left, bias_ptr, vector_ptr, residual_ptr, y_ptr, BATCH, OC, H, W,
    vector_stride, SPLIT: gl.constexpr, HAS_BIAS: gl.constexpr, HAS_VECTOR: gl.constexpr, HAS_RESIDUAL: gl.constexpr,
    ACTIVATION: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // N, N // 8], [8, 1], [1, 0])
    acc = gl.convert_layout(acc, layout)
    within = gl.arange(0, 128, layout=gl.SliceLayout(1, layout))
    columns = channel + gl.arange(0, N, layout=gl.SliceLayout(0, layout))
    y = top + within // 8
    x = left + within % 8
    pixel = (sample * H + y) * W + x
    mask = ((y < H) & (x < W))[:, None] & (columns < OC)[None, :]
    if SPLIT:
        pixel += gl.program_id(1) * BATCH * H * W
        gl.store(y_ptr + pixel[:, None] * OC + columns[None, :], acc, mask=mask)
    else:
        offset = pixel[:, None] * OC + columns[None, :]
        acc = finish(
            acc, bias_ptr, vector_ptr, residual_ptr, sample + within * 0, columns, offset, mask, OC, vector_stride,
            HAS_BIAS, HAS_VECTOR, HAS_RESIDUAL, ACTIVATION,
        )  # fmt: skip
        gl.store(y_ptr + offset, acc.to(y_ptr.dtype.element_ty), mask=mask)


@gluon_jit
def _halo_kernel(
    x_desc, edge_desc, w1_desc, w2_desc, bias_ptr, vector_ptr, residual_ptr, y_ptr, BATCH, C, OC, H, W, vector_stride,
    blocks_per_split,
    N1: gl.constexpr, N2: gl.constexpr, X_SLOTS: gl.constexpr, W_SLOTS: gl.constexpr, SPLIT: gl.constexpr,
    HAS_BIAS: gl.constexpr, HAS_VECTOR: gl.constexpr, HAS_RESIDUAL: gl.constexpr, ACTIVATION: gl.constexpr,
):  # fmt: skip
    ROWS: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    BOX: gl.constexpr = gl.NVMMASharedLayout(128, 16, 4)
    ACC1: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, N1, 16])
    x_buffer = gl.allocate_shared_memory(x_desc.dtype, [X_SLOTS * 18, 8, 64], ROWS)
    w1_buffer = gl.allocate_shared_memory(x_desc.dtype, [W_SLOTS, N1, 64], ROWS)
    w2_buffer = w1_buffer
    x_bars = _barriers(X_SLOTS)
    w_bars = _barriers(W_SLOTS)
    acc1 = gl.zeros((128, N1), gl.float32, ACC1)
    if N2 > 0:
        ACC2: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [8, 1], [16, N2, 16])
        w2_buffer = gl.allocate_shared_memory(x_desc.dtype, [W_SLOTS, N2, 64], ROWS)
        acc2 = gl.zeros((128, N2), gl.float32, ACC2)
    hopper.fence_async_shared()
    row, sample, top, left = _tile_origin(OC, H, W, N1 + N2)
    blocks = gl.cdiv(C, 64)
    first = 0
    if SPLIT:
        first = gl.program_id(1) * blocks_per_split
        blocks = gl.minimum(blocks - first, blocks_per_split)
    groups = 3 * blocks

    for i in gl.static_range(X_SLOTS):
        _load_x(x_desc, edge_desc, x_buffer, x_bars, i, i < groups, sample, top - 1, left - 1, first, X_SLOTS, BOX)
    for i in gl.static_range(W_SLOTS - 1):
        _load_w(w1_desc, w2_desc, w1_buffer, w2_buffer, w_bars, i, i < 3 * groups, row, first, C, W_SLOTS, N1, N2)
    for step in range(0, 3 * groups):
        group = step // 3
        ky = step - group * 3
        x_slot = group % X_SLOTS
        w_slot = step % W_SLOTS
        mbarrier.wait(x_bars.index(x_slot), group // X_SLOTS & 1)
        mbarrier.wait(w_bars.index(w_slot), step // W_SLOTS & 1)
        window = x_buffer.index(x_slot * 18 + ky)._reinterpret(x_desc.dtype, [128, 64], ROWS)
        acc1 = hopper.warpgroup_mma(window, w1_buffer.index(w_slot).permute((1, 0)), acc1, is_async=True)
        if N2 > 0:
            acc2 = hopper.warpgroup_mma(window, w2_buffer.index(w_slot).permute((1, 0)), acc2, is_async=True)
            acc1, acc2 = hopper.warpgroup_mma_wait(num_outstanding=2, deps=(acc1, acc2))
        else:
            acc1 = hopper.warpgroup_mma_wait(num_outstanding=1, deps=(acc1,))
        # Now the step before this one is done everywhere, and what it read may be overwritten.
        gl.thread_barrier()
        later = step - 1 + W_SLOTS
        _load_w(
            w1_desc, w2_desc, w1_buffer, w2_buffer, w_bars, later, later < 3 * groups, row, first, C, W_SLOTS, N1, N2
        )
        later = group - 1 + X_SLOTS
        wanted = (ky == 0) & (group > 0) & (later < groups)
        _load_x(x_desc, edge_desc, x_buffer, x_bars, later, wanted, sample, top - 1, left - 1, first, X_SLOTS, BOX)

    if N2 > 0:
        acc1, acc2 = hopper.warpgroup_mma_wait(num_outstanding=0, deps=(acc1, acc2))
    else:
        acc1 = hopper.warpgroup_mma_wait(num_outstanding=0, deps=(acc1,))
    _retire(x_bars, w_bars, X_SLOTS, W_SLOTS)
    if N2 > 0:
        _store(
            acc2, N2, row + N1, sample, top, left, bias_ptr, vector_ptr, residual_ptr, y_ptr, BATCH, OC, H, W,
            vector_stride, SPLIT, HAS_BIAS, HAS_VECTOR, HAS_RESIDUAL, ACTIVATION,
        )  # fmt: skip
    _store(
        acc1, N1, row, sample, top, left, bias_ptr, vector_ptr, residual_ptr, y_ptr, BATCH, OC, H, W,
        vector_stride, SPLIT, HAS_BIAS, HAS_VECTOR, HAS_RESIDUAL, ACTIVATION,
    )  # fmt: skip


@cache
def choose_halo_splits(tile: HaloTile, tiles: int, blocks: int, processors: int) -> int:
    """Into how many parts to cut the channel blocks, by the same rough cost as in _conv_tma.py."""
    block = 2 * tile.width * 128 * 9 * DEPTH / FLOPS

    def microseconds(splits: int) -> float:
        time = triton.cdiv(tiles * splits, processors) * (triton.cdiv(blocks, splits) * block + PROGRAM_US)
        sums = 2 * 4 * splits * tiles * tile.width * 128
        return time if splits == 1 else time + LAUNCH_US + sums / SUM_BYTES

    return min(range(1, min(MAX_SPLITS, blocks) + 1), key=microseconds)


def _descriptors(x: Tensor, weight: Tensor, tile: HaloTile) -> list[TiledDescriptor]:
    """The image as [N, H, W, C], for 16 and for 2 rows; the weight as [Cout, 9 Cin], for both parts of the channels."""
    batch, depth, height, width = x.shape
    shape, strides = [batch, height, width, depth], [height * width * depth, width * depth, depth, 1]
    box, rows = gl.NVMMASharedLayout(128, 16, 4), gl.NVMMASharedLayout(128, 16, 2)
    images = [TiledDescriptor(x, shape, strides, [1, height, PIXEL_COLUMNS, DEPTH], box) for height in (PIXEL_ROWS, 2)]
    wide = [len(weight), 9 * depth]
    parts = (tile.channels, tile.more_channels or tile.channels)
    return images + [TiledDescriptor(weight, wide, [9 * depth, 1], [part, DEPTH], rows) for part in parts]


def _require(x: Tensor, weight: Tensor, stride: int, padding: int) -> None:
    if not (WINDOWS and is_hopper(x)):
        raise Unsupported("windows of shared memory need Triton 3.6 and a Hopper GPU")
    if weight.shape[2:] != (3, 3) or stride != 1 or padding != 1:
        raise Unsupported("windows of shared memory serve 3x3 convolutions of stride 1 and padding 1 only")
    if x.shape[1] % 8 or x.data_ptr() % 16 or weight.data_ptr() % 16:
        raise Unsupported(f"copying tiles by descriptor needs rows of whole 16 bytes, not {x.shape[1]} channels")
    if x.shape[2] < PIXEL_ROWS:
        raise Unsupported(f"a tile of {PIXEL_ROWS} rows would be idle in part on an image of {x.shape[2]}")


def launch_halo_conv(
    x: Tensor,
    weight: Tensor,
    epilogue: Epilogue,
    stride: int,
    padding: int,
    tile: HaloTile,
    *,
    splits: int | None = None,
) -> Tensor:
    """The convolution with its epilogue; `splits` None divides the depth as far as the machine needs it."""
    _require(x, weight, stride, padding)
    batch, channels, height, width = x.shape
    out_channels = weight.shape[0]
    y = empty_channels_last((batch, out_channels, height, width), x)
    check_operands(x, weight, y, epilogue)
    boxes = batch * triton.cdiv(height, PIXEL_ROWS) * triton.cdiv(width, PIXEL_COLUMNS)
    tiles = boxes * triton.cdiv(out_channels, tile.width)
    blocks = triton.cdiv(channels, DEPTH)
    if splits is None:
        splits = choose_halo_splits(tile, tiles, blocks, multiprocessors(x))
    per_split = triton.cdiv(blocks, splits)
    splits = triton.cdiv(blocks, per_split)
    target, inside = y, epilogue
    if splits > 1:
        target = torch.empty((splits, batch * height * width, out_channels), dtype=torch.float32, device=x.device)
        inside = Epilogue()
    flags, pointers, vector_stride = epilogue_arguments(inside, y)
    _halo_kernel[(tiles, splits)](
        *_descriptors(x, weight, tile), *pointers, target, batch, channels, out_channels, height, width,
        vector_stride, per_split, N1=tile.channels, N2=tile.more_channels, X_SLOTS=tile.x_slots,
        W_SLOTS=tile.w_slots, SPLIT=splits > 1, **flags, num_warps=WARPS,
    )  # fmt: skip
    if splits > 1:
        launch_reduce_splits(target, y, epilogue)
    return y
