"""Whether matrix products of fp16 operands may be summed in fp16, which GeForce cards do at twice the rate.

cuBLAS and cuDNN then sum the whole depth in fp16. Our Triton kernels sum one tile of the depth in fp16, and the tiles
in fp32, which costs an addition for each 64 products and keeps large sums exact. Hopper's own kernels (TMA, Gluon) and
attention always sum in fp32: Hopper gains nothing, and softmax would lose.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

MARK = " summed in float16"  # after the dtype in the key of a choice
PRODUCTS = 16  # of a tensor core's instruction, which are summed before they are rounded

_ALLOWED: ContextVar[bool] = ContextVar("sums_in_half", default=False)


@contextmanager
def summing_in_half(*, allowed: bool) -> Iterator[None]:
    """Inside, products may be summed in fp16, or must not be."""
    token = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def sums_in_half(x: Tensor) -> bool:
    """Whether a product of `x` may be summed in fp16 now."""
    return x.dtype == torch.float16 and _ALLOWED.get()


def product_key(x: Tensor) -> str:
    """The dtype as written in the key of a choice for a product, with how it is summed."""
    return str(x.dtype).removeprefix("torch.") + (MARK if sums_in_half(x) else "")


def summed_in_single(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same key for sums in fp32."""
    return tuple(part.removesuffix(MARK) if isinstance(part, str) else part for part in key)


@contextmanager
def by_cublas(x: Tensor) -> Iterator[None]:
    """For products by PyTorch, whose setting holds for the whole process."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_accumulation
    settings.allow_fp16_accumulation = sums_in_half(x)
    try:
        yield
    finally:
        settings.allow_fp16_accumulation = before


def product_reference(x: Tensor, weight: Tensor, depth: int) -> Tensor:
    """x [M, K] weight [N, K]^T in fp32, of which each `depth` products are summed in fp16 as a tensor core does."""
    total = x.new_zeros((len(x), len(weight)), dtype=torch.float32)
    for x_tile, w_tile in zip(x.float().split(depth, 1), weight.float().split(depth, 1), strict=True):
        part = torch.zeros_like(total)
        for x_few, w_few in zip(x_tile.split(PRODUCTS, 1), w_tile.split(PRODUCTS, 1), strict=True):
            part = (part + x_few @ w_few.T).half().float()
        total += part
    return total
