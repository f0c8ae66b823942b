"""Triton attention over strided views, for any GPU: softmax in fp32, one pass over the keys.

The head is split into a power of two and a remainder, so that a head of 40 uses 48 columns of the matrix unit instead
of 64. The number of keys must be a multiple of the tile's. A masked last block was slower, and gave wrong results for
heads of 80 under Triton 3.6 on a Hopper GPU. cross.py is for few keys, such as a prompt's 77.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modules.stable_fast.kernels.devices import CardClass, card_class, multiplies_by_warp, runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import MOST_GRID_ROWS, Unsupported
from modules.stable_fast.kernels.triton_import import jit, next_power_of_2, tl, triton


class AttentionTile(NamedTuple):
    """Queries per program, keys per block, warps, and load pipeline stages."""

    queries: int
    keys: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return f"triton_{self.queries}x{self.keys}"


ATTENTION_TILES = (AttentionTile(128, 64, 8, 3), AttentionTile(64, 64, 4, 3))
WIDE_HEAD = 128  # of more columns, few tiles fit
LOG2_E = 1.4426950408889634


@jit
def attention_tile(
    source, batch, head, first, end, batch_stride, row_stride,
    COLUMN: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, INSIDE: tl.constexpr,
):  # fmt: skip
    """[ROWS, WIDTH] of one head, from row `first` and column COLUMN. Rows past `end` and columns past D are zero."""
    rows = first + tl.arange(0, ROWS)
    columns = COLUMN + tl.arange(0, WIDTH)
    place = source + batch.to(tl.int64) * batch_stride + head * D + rows[:, None] * row_stride + columns[None, :]
    mask = (columns < D)[None, :]
    if not INSIDE:
        mask = mask & (rows < end)[:, None]
    return tl.load(place, mask=mask, other=0.0)


@jit
def _attention_kernel(
    q, k, v, y_ptr, L, S, heads, scale, q_batch, q_row, k_batch, k_row, v_batch, v_row,
    D: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, V1: tl.constexpr, V2: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    row = tl.program_id(0) * BQ
    q1 = attention_tile(q, batch, head, row, L, q_batch, q_row, 0, D, BQ, K1, False)
    acc1 = tl.zeros((BQ, V1), dtype=tl.float32)
    if K2 > 0:
        q2 = attention_tile(q, batch, head, row, L, q_batch, q_row, K1, D, BQ, K2, False)
    if V2 > 0:
        acc2 = tl.zeros((BQ, V2), dtype=tl.float32)
    highest = tl.full((BQ,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BQ,), dtype=tl.float32)
    for first in range(0, S, BK):
        score = tl.dot(q1, attention_tile(k, batch, head, first, S, k_batch, k_row, 0, D, BK, K1, True).T)
        if K2 > 0:
            score = tl.dot(q2, attention_tile(k, batch, head, first, S, k_batch, k_row, K1, D, BK, K2, True).T, score)
        above = tl.maximum(highest, tl.max(score, axis=1) * scale)
        shrink = tl.exp2(highest - above)
        p = tl.exp2(tl.fma(score, scale, -above[:, None]))
        total = total * shrink + tl.sum(p, axis=1)
        highest = above
        p = p.to(v.dtype.element_ty)
        values = attention_tile(v, batch, head, first, S, v_batch, v_row, 0, D, BK, V1, True)
        acc1 = tl.dot(p, values, acc1 * shrink[:, None])
        if V2 > 0:
            values = attention_tile(v, batch, head, first, S, v_batch, v_row, V1, D, BK, V2, True)
            acc2 = tl.dot(p, values, acc2 * shrink[:, None])
    total = 1.0 / total
    rows = row + tl.arange(0, BQ)
    out = y_ptr + ((batch.to(tl.int64) * L + rows) * heads + head)[:, None] * D
    dtype = y_ptr.dtype.element_ty
    columns = tl.arange(0, V1)
    mask = (rows < L)[:, None]
    tl.store(out + columns[None, :], (acc1 * total[:, None]).to(dtype), mask=mask & (columns < D)[None, :])
    if V2 > 0:
        columns = V1 + tl.arange(0, V2)
        tl.store(out + columns[None, :], (acc2 * total[:, None]).to(dtype), mask=mask & (columns < D)[None, :])


def split_head(size: int) -> tuple[int, int]:
    """Splits `size` into a power of two and a rest padded to a power of two (0 if a single part is as small)."""
    whole = max(16, next_power_of_2(size))
    half = whole // 2
    rest = max(16, next_power_of_2(size - half)) if size > half else 0
    return (half, rest) if half >= 16 and half + rest < whole else (whole, 0)


def split_values(size: int, card: CardClass) -> tuple[int, int]:
    """Like `split_head`, for values, where the matrix unit of the card decides whether two parts pay off.

    Products of one warp (mma) go by 8 columns, so a head of 40 takes 48. The matrix units of Hopper and later take as
    long for 16 or 32 columns as for 64, and a second load costs more instructions than the padding does.
    """
    if size > 64 or card is CardClass.MMA:
        return split_head(size)
    return max(16, next_power_of_2(size)), 0


def suits_tma(*heads: Tensor) -> bool:
    """Whether all addresses and strides are multiples of 16 bytes."""
    strides = [stride * x.element_size() for x in heads for stride in x.stride()[:3]]
    return all(bytes % 16 == 0 for bytes in (*strides, *(x.data_ptr() for x in heads)))


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    size = q.shape[-1]
    assert runs_kernels(q)
    if any(x.stride()[2:] != (size, 1) for x in (q, k, v)):
        raise Unsupported("the Triton attention reads heads that lie side by side")
    if size > 256:
        raise Unsupported(f"the Triton attention keeps whole heads in registers; {size} is too large")
    if q.shape[0] * q.shape[2] > MOST_GRID_ROWS:
        raise Unsupported(f"{q.shape[0]} x {q.shape[2]} heads are more than one launch can number")


def launch_attention(q: Tensor, k: Tensor, v: Tensor, tile: AttentionTile) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D], each position's heads side by side -> [B, L, H * D]."""
    batch, length, heads, size = q.shape
    check_heads(q, k, v)
    if size > WIDE_HEAD and multiplies_by_warp(q):
        raise Unsupported(f"heads of {size} take more registers than one warp has")
    if k.shape[1] % tile.keys:
        raise Unsupported(f"{k.shape[1]} keys are not a multiple of {tile.keys}")
    values, keys = split_values(size, card_class(q)), split_head(size)
    y = q.new_empty((batch, length, heads * size))
    launch_kernel(
        _attention_kernel, (triton.cdiv(length, tile.queries), batch * heads),
        q, k, v, y, length, k.shape[1], heads, size**-0.5 * LOG2_E,
        *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        D=size, K1=keys[0], K2=keys[1], V1=values[0], V2=values[1], BQ=tile.queries, BK=tile.keys,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y
