"""1x1 convolution over the virtual concatenation [a | b] of channels: y = W [a; b] + bias + residual, NHWC in memory.

The concatenation is never built: the kernel runs two matrix products, and the second accumulates onto the first.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import by_cublas, product_key
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.devices import card_class, uses_kernels
from modules.stable_fast.kernels.epilogue import launch_epilogue
from modules.stable_fast.kernels.linear.cublaslt import cublaslt_matmul, cublaslt_ranks, has_cublaslt
from modules.stable_fast.kernels.linear.matmul import MATMUL_TILES, Tile, launch_matmul
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_matmul
from modules.stable_fast.kernels.linear.tma_tiles import TMA_MATMUL_TILES, TmaMatmulTile, serves_tma
from modules.stable_fast.kernels.memory_layout import empty_channels_last, pixel_rows, rows_as_image, to_channels_last
from modules.stable_fast.kernels.registry import register, run_chosen


def conv2d_cat_epilogue_reference(
    a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    split = a.shape[1]
    y = F.conv2d(a, weight[:, :split], bias) + F.conv2d(b, weight[:, split:])
    return to_channels_last(y if residual is None else y + residual)


def _cublas(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """The second product accumulates in place (beta = 1) onto the first, which starts from the bias."""
    split = a.shape[1]
    matrix = weight.flatten(1)
    with by_cublas(a):
        y = F.linear(pixel_rows(a), matrix[:, :split], bias).addmm_(pixel_rows(b), matrix[:, split:].t())
    return launch_epilogue(rows_as_image(y, a), None, None, residual, "none")


def _cublaslt(
    a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, *, rank: int
) -> Tensor:
    """The first product includes bias and residual, and the second accumulates onto it."""
    matrix, split = weight.flatten(1), a.shape[1]
    flat = None if residual is None else pixel_rows(residual)
    y = cublaslt_matmul(pixel_rows(a), matrix[:, :split], bias, flat, rank=rank)
    return rows_as_image(cublaslt_matmul(pixel_rows(b), matrix[:, split:], None, y, rank=rank, in_place=True), a)


def _triton(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, tile: Tile) -> Tensor:
    flat = None if residual is None else pixel_rows(residual)
    return rows_as_image(launch_matmul(pixel_rows(a), pixel_rows(b), weight.flatten(1), bias, flat, "none", tile), a)


def _tma(
    a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, tile: TmaMatmulTile
) -> Tensor:
    flat = None if residual is None else pixel_rows(residual)
    return rows_as_image(
        launch_tma_matmul(pixel_rows(a), pixel_rows(b), weight.flatten(1), bias, flat, "none", tile), a
    )


_CUBLAS = {"cublas": _cublas} | {f"cublaslt_{rank + 1}": partial(_cublaslt, rank=rank) for rank in cublaslt_ranks()}
CANDIDATES = Candidates(
    _CUBLAS,
    {tile.name: partial(_triton, tile=tile) for tile in MATMUL_TILES},
    {tile.name: partial(_tma, tile=tile) for tile in TMA_MATMUL_TILES},
)


def _conv2d_cat_epilogue(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    if not uses_kernels(a):
        return conv2d_cat_epilogue_reference(a, b, weight, bias, residual)
    a, b = to_channels_last(a), to_channels_last(b)
    residual = None if residual is None else to_channels_last(residual)
    rows = a.numel() // a.shape[1]
    key = (rows, a.shape[1], b.shape[1], weight.shape[0], bias is not None, residual is not None, product_key(a))
    served = serves_tma(weight.shape[0], pixel_rows(a), pixel_rows(b), weight.flatten(1))
    implementations = CANDIDATES.on(card_class(a), suits_hopper=served)
    chain = ("cublaslt_1", "cublas") if has_cublaslt() else ("cublas",)
    args = (a, b, weight, bias, residual)
    reference = partial(conv2d_cat_epilogue_reference, *args)
    return run_chosen("conv2d_cat_epilogue", key, implementations, chain, args, reference)


def _fake(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    return empty_channels_last((a.shape[0], weight.shape[0], *a.shape[2:]), a)


register(
    "conv2d_cat_epilogue(Tensor a, Tensor b, Tensor weight, Tensor? bias, Tensor? residual) -> Tensor",
    _conv2d_cat_epilogue,
    _fake,
)
