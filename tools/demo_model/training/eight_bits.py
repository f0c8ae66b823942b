"""Stores weights as fp8 numbers (float8_e4m3fn): half the bytes of fp16, about 3 % of error in each weight.

Matrices and kernels get one factor per row, so that each row's largest value is fp8's largest. The names are those of
scaled fp8 files, which the app reads (`modules/loader/files/scaled.py`). Token tables need no factors: their values
are near 1, where fp8 is as exact as it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

EIGHT_BITS = torch.float8_e4m3fn
_LARGEST = torch.finfo(EIGHT_BITS).max
_TABLE = "token_embedding.weight"


def is_table(name: str) -> bool:
    return name.endswith(_TABLE)


def is_matrix(name: str) -> bool:
    """Tells a weight that may get factors; biases and norms are told apart by their shapes."""
    return name.endswith(".weight") and not is_table(name)


def in_eight_bits(weights: Mapping[str, Tensor], chosen: Callable[[str], bool]) -> dict[str, Tensor]:
    """Returns the weights with the `chosen` tables, matrices and kernels in fp8; all others stay as they are."""
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        stored[name] = weight
        if weight.ndim < 2 or not chosen(name):
            continue
        if is_table(name):
            stored[name] = weight.float().clamp(-_LARGEST, _LARGEST).to(EIGHT_BITS)
        elif is_matrix(name):
            stored[name], factors = _divided(weight)
            stored[f"{name.removesuffix('weight')}scale_weight"] = factors
    return stored


def rounded(weight: Tensor) -> Tensor:
    """Returns a matrix or kernel as it is after storing it in fp8, in float32."""
    numbers, factors = _divided(weight)
    return numbers.float() * factors.reshape(-1, *[1] * (weight.ndim - 1))


def _divided(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the fp8 numbers, and one factor per row."""
    rows = weight.float().flatten(1)
    factors = rows.abs().amax(1).clamp(min=1e-12) / _LARGEST
    return (rows / factors[:, None]).to(EIGHT_BITS).reshape(weight.shape), factors
