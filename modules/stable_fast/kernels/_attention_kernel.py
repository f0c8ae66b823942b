"""Triton attention over strided views, for head sizes the libraries pad heavily (40, 80, 160): fp32 softmax, one pass.

The head is cut into a power-of-two part and a remainder, so that size 40 costs 48 and not 64 of the matrix unit.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modules.stable_fast.kernels._dispatch import Unsupported, runs_kernels
from modules.stable_fast.kernels._triton import jit, next_power_of_2, tl, triton


class AttentionTile(NamedTuple):
    queries: int
    keys: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return f"triton_{self.queries}x{self.keys}"


ATTENTION_TILES = (AttentionTile(128, 64, 8, 3), AttentionTile(128, 128, 8, 2), AttentionTile(64, 64, 4, 3))
LOG2_E = 1.4426950408889634


@jit
def _attention_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, L, S, scale, q_batch, q_row, k_batch, k_row, v_batch, v_row,
    HEADS: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    EVEN_S: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1) // HEADS
    head = tl.program_id(1) % HEADS
    rows = tl.program_id(0) * BQ + tl.arange(0, BQ)
    row_mask = (rows < L)[:, None]
    d1 = tl.arange(0, D1)
    q_base = q_ptr + batch.to(tl.int64) * q_batch + head * D + rows[:, None] * q_row
    k_base = k_ptr + batch.to(tl.int64) * k_batch + head * D
    v_base = v_ptr + batch.to(tl.int64) * v_batch + head * D
    q1 = tl.load(q_base + d1[None, :], mask=row_mask & (d1 < D)[None, :], other=0.0)
    acc1 = tl.zeros((BQ, D1), dtype=tl.float32)
    if D2 > 0:
        d2 = D1 + tl.arange(0, D2)
        q2 = tl.load(q_base + d2[None, :], mask=row_mask & (d2 < D)[None, :], other=0.0)
        acc2 = tl.zeros((BQ, D2), dtype=tl.float32)
    highest = tl.full((BQ,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BQ,), dtype=tl.float32)
    for start in range(0, S, BK):
        keys = start + tl.arange(0, BK)
        key_mask = keys < S
        k1 = tl.load(
            k_base + keys[None, :] * k_row + d1[:, None], mask=key_mask[None, :] & (d1 < D)[:, None], other=0.0
        )
        score = tl.dot(q1, k1)
        if D2 > 0:
            k2_mask = key_mask[None, :] & (d2 < D)[:, None]
            k2 = tl.load(k_base + keys[None, :] * k_row + d2[:, None], mask=k2_mask, other=0.0)
            score = tl.dot(q2, k2, score)
        score *= scale
        if not EVEN_S:
            score = tl.where(key_mask[None, :], score, float("-inf"))
        above = tl.maximum(highest, tl.max(score, axis=1))
        shrink = tl.exp2(highest - above)
        p = tl.exp2(score - above[:, None])
        total = total * shrink + tl.sum(p, axis=1)
        highest = above
        p = p.to(v_ptr.dtype.element_ty)
        v1 = tl.load(
            v_base + keys[:, None] * v_row + d1[None, :], mask=key_mask[:, None] & (d1 < D)[None, :], other=0.0
        )
        acc1 = tl.dot(p, v1, acc1 * shrink[:, None])
        if D2 > 0:
            v2_mask = key_mask[:, None] & (d2 < D)[None, :]
            v2 = tl.load(v_base + keys[:, None] * v_row + d2[None, :], mask=v2_mask, other=0.0)
            acc2 = tl.dot(p, v2, acc2 * shrink[:, None])
    out = y_ptr + ((batch.to(tl.int64) * L + rows) * HEADS + head)[:, None] * D
    dtype = y_ptr.dtype.element_ty
    tl.store(out + d1[None, :], (acc1 / total[:, None]).to(dtype), mask=row_mask & (d1 < D)[None, :])
    if D2 > 0:
        tl.store(out + d2[None, :], (acc2 / total[:, None]).to(dtype), mask=row_mask & (d2 < D)[None, :])


def split_head(size: int) -> tuple[int, int]:
    """(power of two, remainder padded to one) covering `size`; the remainder is 0 where a single part is as small."""
    whole = max(16, next_power_of_2(size))
    half = whole // 2
    rest = max(16, next_power_of_2(size - half)) if size > half else 0
    return (half, rest) if half >= 16 and half + rest < whole else (whole, 0)


def launch_attention(q: Tensor, k: Tensor, v: Tensor, tile: AttentionTile) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D], each position's heads side by side -> [B, L, H * D]."""
    batch, length, heads, size = q.shape
    assert runs_kernels(q) and all(x.stride()[2:] == (size, 1) for x in (q, k, v)), "heads must lie side by side"
    if size > 256:
        raise Unsupported(f"the Triton attention keeps whole heads in registers; {size} is too large")
    d1, d2 = split_head(size)
    y = q.new_empty((batch, length, heads * size))
    _attention_kernel[(triton.cdiv(length, tile.queries), batch * heads)](
        q, k, v, y, length, k.shape[1], size**-0.5 * LOG2_E, *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        HEADS=heads, D=size, D1=d1, D2=d2, BQ=tile.queries, BK=tile.keys, EVEN_S=k.shape[1] % tile.keys == 0,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y
