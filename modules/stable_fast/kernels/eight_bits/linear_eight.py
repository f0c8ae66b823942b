"""Linear of 8-bit numbers with its epilogue: y = act((q W^T) * row_scale * weight_scale + bias) + residual."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import CardClass, card_class, multiprocessors, uses_eight_bit_kernels
from modules.stable_fast.kernels.linear.cublaslt import cublaslt_matmul, cublaslt_ranks
from modules.stable_fast.kernels.linear.matmul import Tile, launch_matmul
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_matmul
from modules.stable_fast.kernels.linear.tma_tiles import TmaMatmulTile, choose_tma_tile, serves_tma
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.scales import Scales

# 128 numbers of a row are 128 bytes, a whole cache line, and the widest row that can be swizzled in shared memory.
TILES = (Tile(128, 64, 128, 4, 4), Tile(128, 128, 128, 8, 4), Tile(64, 64, 128, 4, 4))
TMA_TILES = (
    TmaMatmulTile(128, 128, 32, 128, 8, 4, 1),
    TmaMatmulTile(128, 128, 0, 128, 8, 4, 1),
    TmaMatmulTile(128, 256, 0, 128, 8, 3, 1),
    TmaMatmulTile(64, 128, 32, 128, 4, 3, 2),
    TmaMatmulTile(64, 64, 0, 128, 4, 4, 3),
)
# For int8: Triton starts a product while the last one runs only if sums are fp32 (rule 2.1 of its WGMMAPipeline.cpp).
# For integers it waits at each step, so deeper steps wait half as often. Not timed yet, so no default is among them.
DEEP_TILES = (
    TmaMatmulTile(128, 128, 0, 256, 8, 3, 1),
    TmaMatmulTile(64, 128, 0, 256, 4, 2, 2),
    TmaMatmulTile(64, 64, 0, 256, 4, 2, 3),
)
# On an H200, in int8 at the twelve sizes of SD1.5's and SDXL's layers, where they choose what was the fastest: a second
# program computes while the first one stores. Tiles were not timed in e4m3, which chooses by the same estimates.
TIMES_ESTIMATED = {
    "tma_128x160x128": 1.2,
    "tma_128x128x128": 0.95,
    "tma_64x160x128": 0.8,
    "tma_64x64x128": 0.75,
}


def linear_eight_reference(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """q [..., K]; row_scale [..., 1], or [1] for all rows; weight_q [N, K]; weight_scale [N]; the result in `dtype`."""
    y = F.linear(q.float(), weight_q.float()) * row_scale * weight_scale
    y = activate(y if bias is None else y + bias, activation)
    return (y if residual is None else y + residual).to(dtype)


def _triton(
    q: Tensor,
    weight: Tensor,
    scales: Scales,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    tile: Tile | TmaMatmulTile,
) -> Tensor:
    rows = q.view(-1, q.shape[-1])
    flat = None if residual is None else residual.view(-1, len(weight))
    if isinstance(tile, Tile):
        y = launch_matmul(rows, None, weight, bias, flat, activation, tile, scales)
    else:
        y = launch_tma_matmul(rows, None, weight, bias, flat, activation, tile, scales)
    return y.view(*q.shape[:-1], len(weight))


def _cublaslt(
    q: Tensor,
    weight: Tensor,
    scales: Scales,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    rank: int,
) -> Tensor:
    """The library scales, and adds bias and residual, in one kernel. It has no such product of integers."""
    if activation != "none":
        raise Unsupported(f"cuBLASLt cannot apply {activation}")
    flat = None if residual is None else residual.view(-1, len(weight))
    y = cublaslt_matmul(q.view(-1, q.shape[-1]), weight, bias, flat, rank=rank, scales=scales)
    return y.view(*q.shape[:-1], len(weight))


CUBLASLT = {f"cublaslt_{rank + 1}": partial(_cublaslt, rank=rank) for rank in cublaslt_ranks()}
IMPLEMENTATIONS = {tile.name: partial(_triton, tile=tile) for tile in TILES}
HOPPER = {tile.name: partial(_triton, tile=tile) for tile in TMA_TILES}
DEEP = {tile.name: partial(_triton, tile=tile) for tile in DEEP_TILES}


def _linear_eight(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    args = (q, row_scale, weight_q, weight_scale, bias, residual, activation, dtype)
    if not uses_eight_bit_kernels(q):
        return linear_eight_reference(*args)
    q, weight_q = q.contiguous(), weight_q.contiguous()
    residual = None if residual is None else residual.contiguous()
    rows, (columns, k) = q.numel() // q.shape[-1], weight_q.shape
    key = (rows, columns, k, bias is not None, residual is not None, activation, dtype_key(q))
    tile: Tile | TmaMatmulTile = TILES[0]
    candidates = IMPLEMENTATIONS
    if card_class(q) is CardClass.WGMMA and serves_tma(columns, q.view(-1, k), weight_q):
        tile = choose_tma_tile(TMA_TILES, rows, columns, k, 1, multiprocessors(q), 1, TIMES_ESTIMATED)
        candidates = HOPPER | (CUBLASLT if q.dtype == torch.float8_e4m3fn else DEEP)
    chain = tuple(dict.fromkeys((tile.name, *candidates)))
    scales = Scales(row_scale, weight_scale, dtype)
    return run_chosen(
        "linear_eight", key, candidates, chain, (q, weight_q, scales, bias, residual, activation),
        partial(linear_eight_reference, *args),
    )  # fmt: skip


def _fake(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    return q.new_empty((*q.shape[:-1], weight_q.shape[0]), dtype=dtype)


register(
    "linear_eight(Tensor q, Tensor row_scale, Tensor weight_q, Tensor weight_scale, Tensor? bias, Tensor? residual, "
    "str activation, ScalarType dtype) -> Tensor",
    _linear_eight,
    _fake,
)
