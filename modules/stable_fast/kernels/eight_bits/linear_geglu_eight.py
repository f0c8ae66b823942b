"""GEGLU projection of 8-bit numbers: y = (q V^T * scales + c) * gelu(q G^T * scales + d), weight_q = [V; G], erf GELU.

`linear_geglu_eight_quantized` writes y in 8 bits with a known scale, for the linear that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import CardClass, card_class, multiprocessors, uses_eight_bit_kernels
from modules.stable_fast.kernels.linear.matmul import Tile, launch_geglu_matmul
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_geglu
from modules.stable_fast.kernels.linear.tma_tiles import TmaMatmulTile, choose_tma_tile, serves_tma
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.kinds import quantised
from modules.stable_fast.kernels.scaled.scales import Scales

TILES = (Tile(128, 64, 128, 8, 3), Tile(64, 64, 128, 4, 3))
TMA_TILES = (
    TmaMatmulTile(128, 128, 0, 128, 8, 4, 1),
    TmaMatmulTile(128, 128, 32, 128, 8, 3, 1),
    TmaMatmulTile(128, 64, 0, 128, 8, 3, 2),
)
DEEP_TILES = (TmaMatmulTile(64, 64, 0, 256, 4, 2, 2),)  # for int8, see linear_eight.py
# On an H200, in int8 at four sizes of SD1.5's and SDXL's layers, with a result in half precision. With one of 8 bits,
# the plain estimates chose what was the fastest. Tiles were not timed in e4m3.
TIMES_TO_HALF = {"tma_128x64x128": 0.7, "tma_128x160x128": 0.9}


def linear_geglu_eight_reference(
    q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """q [..., K]; row_scale [..., 1] or [1]; weight_q [2 I, K]; weight_scale and bias [2 I]; the result in `dtype`."""
    return _gated(q, row_scale, weight_q, weight_scale, bias).to(dtype)


def linear_geglu_eight_quantized_reference(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return quantised(_gated(q, row_scale, weight_q, weight_scale, bias), scale, kind)


def _gated(q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    y = F.linear(q.float(), weight_q.float()) * row_scale * weight_scale
    value, gate = (y if bias is None else y + bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def _triton(q: Tensor, weight: Tensor, scales: Scales, bias: Tensor | None, tile: Tile | TmaMatmulTile) -> Tensor:
    launch = launch_geglu_matmul if isinstance(tile, Tile) else launch_tma_geglu
    y = launch(q.view(-1, q.shape[-1]), weight, bias, tile, scales)  # pyright: ignore[reportArgumentType]
    return y.view(*q.shape[:-1], len(weight) // 2)


IMPLEMENTATIONS = {tile.name: partial(_triton, tile=tile) for tile in TILES}
HOPPER = {tile.name: partial(_triton, tile=tile) for tile in TMA_TILES}
DEEP = {tile.name: partial(_triton, tile=tile) for tile in DEEP_TILES}


def _run_kernels(
    q: Tensor, weight: Tensor, scales: Scales, bias: Tensor | None, reference: Callable[[], Tensor]
) -> Tensor:
    q, weight = q.contiguous(), weight.contiguous()
    rows, (columns, k) = q.numel() // q.shape[-1], weight.shape
    key = (rows, columns, k, bias is not None, dtype_key(q), scales.result is not None)
    tile: Tile | TmaMatmulTile = TILES[0]
    candidates = IMPLEMENTATIONS
    if card_class(q) is CardClass.WGMMA and serves_tma(columns // 2, q.view(-1, k), weight):
        times = TIMES_TO_HALF if q.dtype == torch.int8 and scales.result is None else None
        tile = choose_tma_tile(TMA_TILES, rows, columns // 2, k, 2, multiprocessors(q), 1, times)
        candidates = HOPPER | DEEP if q.dtype == torch.int8 else HOPPER
    chain = tuple(dict.fromkeys((tile.name, *candidates)))
    return run_chosen("linear_geglu_eight", key, candidates, chain, (q, weight, scales, bias), reference)


def _linear_geglu_eight(
    q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    reference = partial(linear_geglu_eight_reference, q, row_scale, weight_q, weight_scale, bias, dtype)
    if not uses_eight_bit_kernels(q):
        return reference()
    return _run_kernels(q, weight_q, Scales(row_scale, weight_scale, dtype), bias, reference)


def _linear_geglu_eight_quantized(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    args = (q, row_scale, weight_q, weight_scale, bias, scale, kind)
    reference = partial(linear_geglu_eight_quantized_reference, *args)
    if not uses_eight_bit_kernels(q):
        return reference()
    return _run_kernels(q, weight_q, Scales(row_scale, weight_scale, kind, scale), bias, reference)


def _fake(
    q: Tensor, row_scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return q.new_empty((*q.shape[:-1], weight_q.shape[0] // 2), dtype=dtype)


def _fake_quantized(
    q: Tensor,
    row_scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    kind: torch.dtype,
) -> Tensor:
    return _fake(q, row_scale, weight_q, weight_scale, bias, kind)


_ARGS = "Tensor q, Tensor row_scale, Tensor weight_q, Tensor weight_scale, Tensor? bias"
register(f"linear_geglu_eight({_ARGS}, ScalarType dtype) -> Tensor", _linear_geglu_eight, _fake)
register(
    f"linear_geglu_eight_quantized({_ARGS}, Tensor scale, ScalarType kind) -> Tensor",
    _linear_geglu_eight_quantized,
    _fake_quantized,
)
