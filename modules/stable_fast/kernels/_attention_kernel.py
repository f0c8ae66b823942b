"""Triton attention over strided views, for head sizes the libraries pad heavily (40, 80, 160): fp32 softmax, one pass.

A head is cut into a power-of-two part and a remainder where that saves padding. Tiles come by the tensor memory
accelerator (TMA) where the GPU has one, which fills what lies outside with zeros; else by masked loads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from modules.stable_fast.kernels._dispatch import Unsupported, copies_tensor_tiles, runs_kernels
from modules.stable_fast.kernels._triton import TensorDescriptor, jit, next_power_of_2, tl, triton


class AttentionTile(NamedTuple):
    """Queries of a program, keys of a block, warps, stages of the load pipeline, and how tiles are loaded."""

    queries: int
    keys: int
    warps: int
    stages: int
    tma: bool = False

    @property
    def name(self) -> str:
        return f"{'tma' if self.tma else 'triton'}_{self.queries}x{self.keys}"


ATTENTION_TILES = (
    AttentionTile(128, 64, 8, 3),
    AttentionTile(128, 128, 8, 2),
    AttentionTile(64, 64, 4, 3),
    AttentionTile(128, 64, 8, 3, tma=True),
    AttentionTile(64, 64, 4, 3, tma=True),
)
LOG2_E = 1.4426950408889634


@jit
def attention_tile(
    source, batch, head, first, end, batch_stride, row_stride,
    COLUMN: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr,
    INSIDE: tl.constexpr,
):  # fmt: skip
    """[ROWS, WIDTH] of one head, from row `first` and column COLUMN on; rows from `end` and columns from D are zero."""
    if TMA:
        tile = source.load([batch, head, first, COLUMN]).reshape(ROWS, WIDTH)
    else:
        rows = first + tl.arange(0, ROWS)
        columns = COLUMN + tl.arange(0, WIDTH)
        place = source + batch.to(tl.int64) * batch_stride + head * D + rows[:, None] * row_stride + columns[None, :]
        mask = (columns < D)[None, :]
        if not INSIDE:
            mask = mask & (rows < end)[:, None]
        tile = tl.load(place, mask=mask, other=0.0)
    return tile


@jit
def _attend_block(
    q1, q2, k1, k2, v1, v2, acc1, acc2, highest, total, batch, head, first, S, scale, k_batch, k_row, v_batch, v_row,
    D: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, V1: tl.constexpr, V2: tl.constexpr, BK: tl.constexpr,
    TMA: tl.constexpr, INSIDE: tl.constexpr,
):  # fmt: skip
    """Accumulators, row maxima (times `scale`) and row sums after keys first ... first + BK - 1."""
    score = tl.dot(q1, attention_tile(k1, batch, head, first, S, k_batch, k_row, 0, D, BK, K1, TMA, INSIDE).T)
    if K2 > 0:
        score = tl.dot(
            q2, attention_tile(k2, batch, head, first, S, k_batch, k_row, K1, D, BK, K2, TMA, INSIDE).T, score
        )
    if not INSIDE:
        score = tl.where((first + tl.arange(0, BK) < S)[None, :], score, float("-inf"))
    above = tl.maximum(highest, tl.max(score, axis=1) * scale)
    shrink = tl.exp2(highest - above)
    p = tl.exp2(tl.fma(score, scale, -above[:, None]))
    total = total * shrink + tl.sum(p, axis=1)
    v = attention_tile(v1, batch, head, first, S, v_batch, v_row, 0, D, BK, V1, TMA, INSIDE)
    p = p.to(v.dtype)
    acc1 = tl.dot(p, v, acc1 * shrink[:, None])
    if V2 > 0:
        v = attention_tile(v2, batch, head, first, S, v_batch, v_row, V1, D, BK, V2, TMA, INSIDE)
        acc2 = tl.dot(p, v, acc2 * shrink[:, None])
    return acc1, acc2, above, total


@jit
def _attention_kernel(
    q1_src, q2_src, k1, k2, v1, v2, y_ptr, L, S, heads, scale, q_batch, q_row, k_batch, k_row, v_batch, v_row,
    D: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, V1: tl.constexpr, V2: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, EVEN_S: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    row = tl.program_id(0) * BQ
    q1 = attention_tile(q1_src, batch, head, row, L, q_batch, q_row, 0, D, BQ, K1, TMA, False)
    q2 = q1
    if K2 > 0:
        q2 = attention_tile(q2_src, batch, head, row, L, q_batch, q_row, K1, D, BQ, K2, TMA, False)
    acc1 = tl.zeros((BQ, V1), dtype=tl.float32)
    acc2 = tl.zeros((BQ, 16 if V2 == 0 else V2), dtype=tl.float32)
    highest = tl.full((BQ,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BQ,), dtype=tl.float32)
    inside = S if EVEN_S else S // BK * BK
    for first in range(0, inside, BK):
        acc1, acc2, highest, total = _attend_block(
            q1, q2, k1, k2, v1, v2, acc1, acc2, highest, total, batch, head, first, S, scale,
            k_batch, k_row, v_batch, v_row, D, K1, K2, V1, V2, BK, TMA, True,
        )  # fmt: skip
    if not EVEN_S:
        acc1, acc2, highest, total = _attend_block(
            q1, q2, k1, k2, v1, v2, acc1, acc2, highest, total, batch, head, inside, S, scale,
            k_batch, k_row, v_batch, v_row, D, K1, K2, V1, V2, BK, TMA, False,
        )  # fmt: skip
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
    """(power of two, remainder padded to one) covering `size`; the remainder is 0 where a single part is as small."""
    whole = max(16, next_power_of_2(size))
    half = whole // 2
    rest = max(16, next_power_of_2(size - half)) if size > half else 0
    return (half, rest) if half >= 16 and half + rest < whole else (whole, 0)


def split_wide_head(size: int) -> tuple[int, int]:
    """The same where a part of 16 or 32 saves nothing, unless it replaces more than 64.

    The matrix unit takes as long for 16 or 32 columns of values as for 64, and a second TMA load costs more
    instructions than the padding does.
    """
    return split_head(size) if size > 64 else (max(16, next_power_of_2(size)), 0)


def _descriptor(x: Tensor, rows: int, width: int) -> Any:
    """Boxes of [rows, width] over x [B, L, H, D] seen as [B, H, L, D]."""
    batch, length, heads, size = x.shape
    strides = [x.stride(0), x.stride(2), x.stride(1), 1]
    return TensorDescriptor(x, [batch, heads, length, size], strides, [1, 1, rows, width])


def suits_tma(x: Tensor) -> bool:
    """Addresses and strides must be multiples of 16 bytes."""
    return x.data_ptr() % 16 == 0 and all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:3])


def _sources(x: Tensor, rows: int, parts: tuple[int, int], *, tma: bool) -> tuple[Any, Any]:
    """What the kernel loads the two parts of a head from."""
    if not tma:
        return x, x
    first = _descriptor(x, rows, parts[0])
    return first, _descriptor(x, rows, parts[1]) if parts[1] else first


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    size = q.shape[-1]
    assert runs_kernels(q) and all(x.stride()[2:] == (size, 1) for x in (q, k, v)), "heads must lie side by side"
    if size > 256:
        raise Unsupported(f"the Triton attention keeps whole heads in registers; {size} is too large")


def launch_attention(q: Tensor, k: Tensor, v: Tensor, tile: AttentionTile) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D], each position's heads side by side -> [B, L, H * D]."""
    batch, length, heads, size = q.shape
    check_heads(q, k, v)
    if tile.tma and not copies_tensor_tiles(q):
        raise Unsupported("only GPUs of compute capability 9.0 and later have a tensor memory accelerator")
    tma = tile.tma and all(suits_tma(x) for x in (q, k, v))
    values = split_wide_head(size)
    keys = values if tma else split_head(size)
    y = q.new_empty((batch, length, heads * size))
    _attention_kernel[(triton.cdiv(length, tile.queries), batch * heads)](
        *_sources(q, tile.queries, keys, tma=tma), *_sources(k, tile.keys, keys, tma=tma),
        *_sources(v, tile.keys, values, tma=tma), y, length, k.shape[1], heads, size**-0.5 * LOG2_E,
        *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        D=size, K1=keys[0], K2=keys[1], V1=values[0], V2=values[1],
        BQ=tile.queries, BK=tile.keys, EVEN_S=k.shape[1] % tile.keys == 0, TMA=tma,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y
