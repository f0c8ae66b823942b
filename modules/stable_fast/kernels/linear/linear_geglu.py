"""GEGLU projection: y = (x V^T + c) * gelu(x G^T + d), weight = [V; G] and bias = [c; d], erf GELU, as in LDM."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import by_cublas, product_key
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.devices import card_class, multiprocessors, uses_kernels
from modules.stable_fast.kernels.epilogue import launch_geglu
from modules.stable_fast.kernels.linear.matmul import GEGLU_TILES, Tile, launch_geglu_matmul
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_geglu
from modules.stable_fast.kernels.linear.tma_tiles import TMA_GEGLU_TILES, TmaMatmulTile, choose_tma_tile, serves_tma
from modules.stable_fast.kernels.registry import register, run_chosen


def linear_geglu_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    value, gate = F.linear(x, weight, bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def _cublas(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with by_cublas(x):
        y = F.linear(x, weight, bias)
    return launch_geglu(y)


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile) -> Tensor:
    y = launch_geglu_matmul(x.reshape(-1, x.shape[-1]), weight, bias, tile)
    return y.view(*x.shape[:-1], weight.shape[0] // 2)


def _tma(x: Tensor, weight: Tensor, bias: Tensor | None, tile: TmaMatmulTile) -> Tensor:
    y = launch_tma_geglu(x.reshape(-1, x.shape[-1]), weight, bias, tile)
    return y.view(*x.shape[:-1], weight.shape[0] // 2)


CANDIDATES = Candidates(
    {"cublas": _cublas},
    {tile.name: partial(_triton, tile=tile) for tile in GEGLU_TILES},
    {tile.name: partial(_tma, tile=tile) for tile in TMA_GEGLU_TILES},
)


def _linear_geglu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not uses_kernels(x):
        return linear_geglu_reference(x, weight, bias)
    x, weight = x.contiguous(), weight.contiguous()
    args, reference = (x, weight, bias), partial(linear_geglu_reference, x, weight, bias)
    rows, (columns, k) = x.view(-1, x.shape[-1]), weight.shape
    key = (len(rows), columns, k, bias is not None, product_key(x))
    served = serves_tma(columns // 2, rows, weight)
    tile: Tile | TmaMatmulTile = GEGLU_TILES[0]
    if served:
        tile = choose_tma_tile(TMA_GEGLU_TILES, len(rows), columns // 2, k, 2, multiprocessors(x))
    candidates = CANDIDATES.on(card_class(x), suits_hopper=served)
    chain = [name for name in (tile.name, "cublas") if name in candidates]
    return run_chosen("linear_geglu", key, candidates, chain, args, reference)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0] // 2))


register("linear_geglu(Tensor x, Tensor weight, Tensor? bias) -> Tensor", _linear_geglu, _fake)
