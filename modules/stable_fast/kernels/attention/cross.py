"""Attention to a few keys, such as the 77 tokens of a prompt, with all keys on chip and thus no running maximum.

Each program loads the keys and values of one head. Then it works through one or more tiles of queries, loading the next
tile meanwhile. Keys are split like heads: 77 become 64 and 13 (padded to 16), which is less than 128. Softmax is in
fp32, and probabilities have the dtype of v.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modules.stable_fast.kernels.attention.strided import LOG2_E, WIDE_HEAD, attention_tile, check_heads, split_head
from modules.stable_fast.kernels.devices import multiplies_by_warp
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.triton_import import jit, next_power_of_2, tl, triton

MOST_KEYS = 128


class CrossTile(NamedTuple):
    """Queries per tile, tiles per program, and warps."""

    queries: int
    repeats: int
    warps: int

    @property
    def name(self) -> str:
        return f"cross_{self.queries}x{self.repeats}"


CROSS_TILES = (CrossTile(64, 1, 4), CrossTile(64, 4, 4), CrossTile(128, 1, 8))


@jit
def _scores(q, k, first, S, KEYS: tl.constexpr, INSIDE: tl.constexpr):
    score = tl.dot(q, k.T)
    if not INSIDE:
        score = tl.where((first + tl.arange(0, KEYS) < S)[None, :], score, float("-inf"))
    return score


@jit
def _cross_kernel(
    q, k, v, y_ptr, L, S, heads, scale, q_batch, q_row, k_batch, k_row, v_batch, v_row,
    D: tl.constexpr, W: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr, BQ: tl.constexpr, REPEATS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    k1 = attention_tile(k, batch, head, 0, S, k_batch, k_row, 0, D, S1, W, S2 > 0)
    v1 = attention_tile(v, batch, head, 0, S, v_batch, v_row, 0, D, S1, W, S2 > 0)
    if S2 > 0:
        k2 = attention_tile(k, batch, head, S1, S, k_batch, k_row, 0, D, S2, W, False)
        v2 = attention_tile(v, batch, head, S1, S, v_batch, v_row, 0, D, S2, W, False)
    columns = tl.arange(0, W)
    for i in range(REPEATS):
        row = (tl.program_id(0) * REPEATS + i) * BQ
        q_tile = attention_tile(q, batch, head, row, L, q_batch, q_row, 0, D, BQ, W, False)
        score1 = _scores(q_tile, k1, 0, S, S1, S2 > 0)
        highest = tl.max(score1, axis=1)
        if S2 > 0:
            score2 = _scores(q_tile, k2, S1, S, S2, False)
            highest = tl.maximum(highest, tl.max(score2, axis=1))
        highest *= scale
        p = tl.exp2(tl.fma(score1, scale, -highest[:, None]))
        total = tl.sum(p, axis=1)
        y = tl.dot(p.to(v1.dtype), v1)
        if S2 > 0:
            p = tl.exp2(tl.fma(score2, scale, -highest[:, None]))
            total += tl.sum(p, axis=1)
            y = tl.dot(p.to(v2.dtype), v2, y)
        rows = row + tl.arange(0, BQ)
        out = y_ptr + ((batch.to(tl.int64) * L + rows) * heads + head)[:, None] * D + columns[None, :]
        y = (y * (1.0 / total)[:, None]).to(y_ptr.dtype.element_ty)
        tl.store(out, y, mask=(rows < L)[:, None] & (columns < D)[None, :])


def launch_cross(q: Tensor, k: Tensor, v: Tensor, tile: CrossTile) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D], each position's heads side by side -> [B, L, H * D]."""
    batch, length, heads, size = q.shape
    check_heads(q, k, v)
    if k.shape[1] > MOST_KEYS:
        raise Unsupported(f"{k.shape[1]} keys are more than the {MOST_KEYS} that stay on chip")
    if size > WIDE_HEAD and tile.queries * tile.repeats > (64 if multiplies_by_warp(q) else 128):
        raise Unsupported(f"heads of {size} take more registers than {tile.name} has")
    s1, s2 = split_head(k.shape[1])
    y = q.new_empty((batch, length, heads * size))
    launch_kernel(
        _cross_kernel, (triton.cdiv(length, tile.queries * tile.repeats), batch * heads),
        q, k, v, y, length, k.shape[1], heads, size**-0.5 * LOG2_E, *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        D=size, W=max(16, next_power_of_2(size)), S1=s1, S2=s2, BQ=tile.queries, REPEATS=tile.repeats,
        num_warps=tile.warps, num_stages=2,
    )  # fmt: skip
    return y
