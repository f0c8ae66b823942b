"""Linear with its epilogue: y = act(x W^T + b) + residual, act being one of ACTIVATIONS."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import by_cublas, product_key
from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.devices import card_class, uses_kernels
from modules.stable_fast.kernels.epilogue import launch_epilogue
from modules.stable_fast.kernels.linear.cublaslt import cublaslt_matmul, cublaslt_ranks, has_cublaslt
from modules.stable_fast.kernels.linear.matmul import MATMUL_TILES, Tile, launch_matmul
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_matmul
from modules.stable_fast.kernels.linear.tma_tiles import TMA_MATMUL_TILES, TmaMatmulTile, serves_tma
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.registry import register, run_chosen


def linear_epilogue_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    y = activate(F.linear(x, weight, bias), activation)
    return y if residual is None else y + residual


def _cublas(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    """cuBLAS adds a bias itself. Anything else takes one in-place pass over the result."""
    with by_cublas(x):
        if residual is None and activation == "none":
            return F.linear(x, weight, bias)
        y = F.linear(x, weight)
    return launch_epilogue(y, bias, None, residual, activation, residual_last=True)


def _cublaslt(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str, *, rank: int
) -> Tensor:
    """The matrix product kernel also adds bias and residual, or applies GELU."""
    gelu = activation == "gelu_tanh" and residual is None
    if activation != "none" and not gelu:
        raise Unsupported(f"cuBLASLt cannot apply {activation}{' before a residual' if residual is not None else ''}")
    flat = None if residual is None else residual.view(-1, weight.shape[0])
    y = cublaslt_matmul(x.view(-1, x.shape[-1]), weight, bias, flat, rank=rank, gelu=gelu)
    return y.view(*x.shape[:-1], weight.shape[0])


def _triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str, tile: Tile
) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    flat = None if residual is None else residual.reshape(-1, weight.shape[0])
    return launch_matmul(rows, None, weight, bias, flat, activation, tile).view(*x.shape[:-1], weight.shape[0])


def _tma(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str, tile: TmaMatmulTile
) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    flat = None if residual is None else residual.reshape(-1, weight.shape[0])
    return launch_tma_matmul(rows, None, weight, bias, flat, activation, tile).view(*x.shape[:-1], weight.shape[0])


_CUBLAS = {"cublas": _cublas} | {f"cublaslt_{rank + 1}": partial(_cublaslt, rank=rank) for rank in cublaslt_ranks()}
CANDIDATES = Candidates(
    _CUBLAS,
    {tile.name: partial(_triton, tile=tile) for tile in MATMUL_TILES},
    {tile.name: partial(_tma, tile=tile) for tile in TMA_MATMUL_TILES},
)


def _linear_epilogue(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    if not uses_kernels(x):
        return linear_epilogue_reference(x, weight, bias, residual, activation)
    x, weight = x.contiguous(), weight.contiguous()
    residual = None if residual is None else residual.contiguous()
    key = (x.numel() // x.shape[-1], *weight.shape, bias is not None, residual is not None, activation, product_key(x))
    served = serves_tma(weight.shape[0], x.view(-1, x.shape[-1]), weight)
    implementations = CANDIDATES.on(card_class(x), suits_hopper=served)
    # Measured on an H100: for more rows, the library's first suggestion costs more than the extra pass.
    adds = residual is not None and activation == "none" and key[0] <= 4096
    # Not measured: for 4096 x 12288 results, the extra pass moves 200 MB, which takes a tenth of the product's time.
    bends = residual is None and activation == "gelu_tanh"
    chain = ("cublaslt_1", "cublas") if (adds or bends) and has_cublaslt() else ("cublas",)
    args = (x, weight, bias, residual, activation)
    return run_chosen("linear_epilogue", key, implementations, chain, args, partial(linear_epilogue_reference, *args))


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


register(
    "linear_epilogue(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation) -> Tensor",
    _linear_epilogue,
    _fake,
)
