"""Attention on Hopper with specialised warps: one loads keys and values by TMA, each group of four handles 64 queries.

The groups share every block of keys. They take turns at the matrix unit, each with two products: the scores of the next
block, and probabilities times values. So the products of one group run while the others compute exponentials. A group
computes the exponentials of its scores as soon as they are ready, while its other product is still running. Blocks
cycle through a ring of buffers: the loading warp waits until all groups have left a buffer, and the groups wait until
the buffer is filled.

Probabilities are rounded to the dtype of v. Everything else is fp32, as in strided.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from modules.stable_fast.kernels.attention.strided import LOG2_E, check_heads, split_head, suits_tma
from modules.stable_fast.kernels.devices import is_hopper
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.triton_import import (
    GluonDescriptor,
    gl,
    gluon_jit,
    mbarrier,
    next_power_of_2,
    tma_load,
    triton,
    warpgroup_mma,
    warpgroup_mma_wait,
)

QUERIES = 64  # per group: the height of the matrix unit's tile
LOADER_REGISTERS = 24
SHARED_BYTES = 220_000  # a program may use 227 KiB; the rest is for barriers
MOST_STAGES = 4


class SpecializedTile(NamedTuple):
    """Groups of four warps per program, keys per block, and whether the groups take turns at the matrix unit."""

    groups: int
    keys: int
    turns: bool = True

    @property
    def name(self) -> str:
        return f"specialized_{QUERIES * self.groups}x{self.keys}{'' if self.turns else '_free'}"

    @property
    def registers(self) -> tuple[int, int]:
        """Registers per thread at launch, and per attending thread after the loading warp has given up its share."""
        launch = 65536 // (128 * (self.groups + 1)) // 8 * 8
        return launch, (launch * (self.groups + 1) - LOADER_REGISTERS) // self.groups // 8 * 8

    def fits(self, width: int) -> bool:
        """Whether scores, probabilities, accumulator and 25 others fit in registers, and two key blocks on chip."""
        return self.registers[1] >= self.keys * 3 // 4 + width // 2 + 25 and self.stages(width) > 1

    def stages(self, width: int) -> int:
        row = 2 * width
        return min(MOST_STAGES, (SHARED_BYTES - self.groups * QUERIES * row) // (2 * self.keys * row))


# The last tile is for heads wider than 64 and for few queries.
SPECIALIZED_TILES = (
    SpecializedTile(4, 64),
    SpecializedTile(4, 64, turns=False),
    SpecializedTile(3, 128),
    SpecializedTile(2, 128),
)


@gluon_jit
def _load(q, k, v, buffers, place, S, GROUPS: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr):
    q_tiles, k_tiles, v_tiles, q_full, k_full, v_full, empty, turn = buffers
    batch, head, row = place
    mbarrier.expect(q_full, GROUPS * q.block_type.nbytes)
    for i in gl.static_range(GROUPS):
        tma_load(q, [batch, head, row + 64 * i, 0], q_full, q_tiles.index(i))
    for block in range(gl.cdiv(S, BK)):
        stage = block % STAGES
        mbarrier.wait(empty.index(stage), (block // STAGES & 1) ^ 1)
        mbarrier.expect(k_full.index(stage), k.block_type.nbytes)
        tma_load(k, [batch, head, block * BK, 0], k_full.index(stage), k_tiles.index(stage))
        mbarrier.expect(v_full.index(stage), v.block_type.nbytes)
        tma_load(v, [batch, head, block * BK, 0], v_full.index(stage), v_tiles.index(stage))


@gluon_jit
def _issue_scores(q, k_tiles, stage, BK: gl.constexpr, W: gl.constexpr, K1: gl.constexpr, K2: gl.constexpr):
    """Starts q k^T. Reading the result requires a wait."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BK, 16])
    k = k_tiles.index(stage).reshape([BK, W])
    score = gl.zeros([64, BK], gl.float32, layout)
    score = warpgroup_mma(q.slice(0, K1, 1), k.slice(0, K1, 1).permute((1, 0)), score, use_acc=False, is_async=True)
    if K2 > 0:
        score = warpgroup_mma(q.slice(K1, K2, 1), k.slice(K1, K2, 1).permute((1, 0)), score, is_async=True)
    return score


@gluon_jit
def _without_absent(score, block, S, BK: gl.constexpr):
    """Sets the scores past the last key, S - 1, to minus infinity."""
    keys = block * BK + gl.arange(0, BK, gl.SliceLayout(0, score.type.layout))
    return gl.where((keys < S)[None, :], score, float("-inf"))


@gluon_jit
def _lane_sums(p):
    """Partial sums of each row's four lanes, [64, 4]. The lanes are added up only after the last block."""
    return gl.sum(gl.sum(p.reshape([p.shape[0], p.shape[1] // 8, 4, 2]), axis=3), axis=1)


@gluon_jit
def _softmax(score, scale, highest, total):
    """Probabilities, the factor for all earlier results, and the new row maxima (times `scale`) and row sums."""
    above = gl.maximum(highest, gl.max(score, axis=1) * scale)
    shrink = gl.exp2(highest - above)
    p = gl.exp2(gl.fma(score, scale, -above[:, None]))
    total = total * gl.convert_layout(shrink, gl.SliceLayout(1, total.type.layout))[:, None] + _lane_sums(p)
    return p, shrink, above, total


@gluon_jit
def _attend(
    buffers, place, rest,
    D: gl.constexpr, BK: gl.constexpr, W: gl.constexpr, K1: gl.constexpr, K2: gl.constexpr, STAGES: gl.constexpr,
    EVEN_S: gl.constexpr, GROUPS: gl.constexpr, TURNS: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    q_tiles, k_tiles, v_tiles, q_full, k_full, v_full, empty, turn = buffers
    batch, head, row = place
    y_ptr, heads, L, S, scale = rest
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BK, 16])
    values: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, W, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, values, 2)
    acc = gl.zeros([64, W], gl.float32, values)
    highest = gl.full([64], float("-inf"), gl.float32, gl.SliceLayout(1, scores))
    total = _lane_sums(gl.zeros([64, BK], gl.float32, scores))
    q = q_tiles.index(GROUP).reshape([64, W])
    mbarrier.wait(q_full, 0)
    mbarrier.wait(k_full.index(0), 0)
    score = warpgroup_mma_wait(0, deps=[_issue_scores(q, k_tiles, 0, BK, W, K1, K2)])
    last = gl.cdiv(S, BK) - 1
    if not EVEN_S and last == 0:
        score = _without_absent(score, 0, S, BK)
    p, shrink, highest, total = _softmax(score, scale, highest, total)
    p = gl.convert_layout(p.to(v_tiles.dtype), operand)
    for block in range(last):
        stage = block % STAGES
        after = (block + 1) % STAGES
        mbarrier.wait(k_full.index(after), (block + 1) // STAGES & 1)
        mbarrier.wait(v_full.index(stage), block // STAGES & 1)
        if TURNS:  # the first group need not be called for its first turn
            mbarrier.wait(turn.index(GROUP), (block & 1) ^ (GROUP == 0))
        score = _issue_scores(q, k_tiles, after, BK, W, K1, K2)
        acc = warpgroup_mma(p, v_tiles.index(stage).reshape([BK, W]), acc, is_async=True)
        if TURNS:
            mbarrier.arrive(turn.index((GROUP + 1) % GROUPS), count=1)
        score = warpgroup_mma_wait(1, deps=[score])
        if not EVEN_S and block + 1 == last:
            score = _without_absent(score, last, S, BK)
        new, shrink, highest, total = _softmax(score, scale, highest, total)
        acc, p = warpgroup_mma_wait(0, deps=[acc, p])
        mbarrier.arrive(empty.index(stage), count=1)
        p = gl.convert_layout(new.to(v_tiles.dtype), operand)
        acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, values))[:, None]
    mbarrier.wait(v_full.index(last % STAGES), last // STAGES & 1)
    acc = warpgroup_mma(p, v_tiles.index(last % STAGES).reshape([BK, W]), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=[acc])
    rows = row + 64 * GROUP + gl.arange(0, 64, gl.SliceLayout(1, values))
    columns = gl.arange(0, W, gl.SliceLayout(0, values))
    out = y_ptr + ((batch.to(gl.int64) * L + rows) * heads + head)[:, None] * D + columns[None, :]
    share = gl.convert_layout(1.0 / gl.sum(total, axis=1), gl.SliceLayout(1, values))
    mask = (rows < L)[:, None] & (columns < D)[None, :]
    gl.store(out, (acc * share[:, None]).to(y_ptr.dtype.element_ty), mask=mask)


@gluon_jit
def _specialized_kernel(
    q, k, v, y_ptr, L, S, heads, scale,
    D: gl.constexpr, BK: gl.constexpr, W: gl.constexpr, K1: gl.constexpr, K2: gl.constexpr, STAGES: gl.constexpr,
    EVEN_S: gl.constexpr, GROUPS: gl.constexpr, TURNS: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    batch = gl.program_id(1) // heads
    head = gl.program_id(1) % heads
    row = gl.program_id(0) * (64 * GROUPS)
    q_tiles = gl.allocate_shared_memory(q.dtype, [GROUPS] + q.block_type.shape, q.layout)
    k_tiles = gl.allocate_shared_memory(k.dtype, [STAGES] + k.block_type.shape, k.layout)
    v_tiles = gl.allocate_shared_memory(v.dtype, [STAGES] + v.block_type.shape, v.layout)
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turn = gl.allocate_shared_memory(gl.int64, [GROUPS, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(empty.index(i), count=GROUPS)
    for i in gl.static_range(GROUPS):
        mbarrier.init(turn.index(i), count=1)
    buffers = (q_tiles, k_tiles, v_tiles, q_full, k_full, v_full, empty, turn)
    # Constants stay compile-time constants only if they are written out in the call.
    place = (batch, head, row)
    rest = (y_ptr, heads, L, S, scale)
    if GROUPS == 2:
        gl.warp_specialize([
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 0)),
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 1)),
            (_load, (q, k, v, buffers, place, S, GROUPS, BK, STAGES)),
        ], [4, 1], [REGISTERS, 24])  # fmt: skip
    elif GROUPS == 3:
        gl.warp_specialize([
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 0)),
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 1)),
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 2)),
            (_load, (q, k, v, buffers, place, S, GROUPS, BK, STAGES)),
        ], [4, 4, 1], [REGISTERS, REGISTERS, 24])  # fmt: skip
    else:
        gl.static_assert(GROUPS == 4)
        gl.warp_specialize([
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 0)),
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 1)),
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 2)),
            (_attend, (buffers, place, rest, D, BK, W, K1, K2, STAGES, EVEN_S, GROUPS, TURNS, 3)),
            (_load, (q, k, v, buffers, place, S, GROUPS, BK, STAGES)),
        ], [4, 4, 4, 1], [REGISTERS, REGISTERS, REGISTERS, 24])  # fmt: skip


def head_width(size: int) -> int:
    """Columns per tile: at least 64, because the matrix unit is no faster with fewer."""
    return max(64, next_power_of_2(size))


def _descriptor(x: Tensor, rows: int, width: int) -> Any:
    """Boxes of [rows, width] over x [B, L, H, D] viewed as [B, H, L, D]; columns past D are read as zeros."""
    batch, length, heads, size = x.shape
    strides = [x.stride(0), x.stride(2), x.stride(1), 1]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    return GluonDescriptor(x, [batch, heads, length, size], strides, [1, 1, rows, width], layout)


def launch_specialized(q: Tensor, k: Tensor, v: Tensor, tile: SpecializedTile) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D], each position's heads side by side -> [B, L, H * D]."""
    batch, length, heads, size = q.shape
    if not is_hopper(q):
        raise Unsupported("the specialised attention is written for compute capability 9.0 (Hopper)")
    check_heads(q, k, v)
    width = head_width(size)
    if not tile.fits(width):
        raise Unsupported(f"heads of {size} are too large for {tile.name}")
    if not suits_tma(q, k, v):
        raise Unsupported("TMA needs addresses and strides that are multiples of 16 bytes")
    k1, k2 = split_head(size)
    launch_registers, registers = tile.registers
    y = q.new_empty((batch, length, heads * size))
    launch_kernel(
        _specialized_kernel, (triton.cdiv(length, QUERIES * tile.groups), batch * heads),
        _descriptor(q, QUERIES, width), _descriptor(k, tile.keys, width), _descriptor(v, tile.keys, width),
        y, length, k.shape[1], heads, size**-0.5 * LOG2_E,
        D=size, BK=tile.keys, W=width, K1=k1, K2=k2, STAGES=tile.stages(width), EVEN_S=k.shape[1] % tile.keys == 0,
        GROUPS=tile.groups, TURNS=tile.turns, REGISTERS=registers, num_warps=4, maxnreg=launch_registers,
    )  # fmt: skip
    return y
