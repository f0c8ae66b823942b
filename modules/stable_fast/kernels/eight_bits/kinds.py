"""The two kinds of 8-bit numbers, and how a number becomes one of them: divided by a scale, rounded, saturated.

Both are symmetric: a number is q * scale. Where a scale is computed from numbers that are not all finite, it is NaN,
so that everything computed from them is NaN too.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
# Numbers below this count as zeros, because the reciprocal of their scale would overflow.
SMALLEST = 1e-30


def scale_for(amax: Tensor, kind: torch.dtype) -> Tensor:
    """The scale in fp32 with which numbers up to `amax` use the whole range; 1 for zeros, NaN if not finite."""
    scale = torch.where(amax <= SMALLEST, 1.0, amax / LARGEST[kind])
    return torch.where(scale.isinf(), torch.nan, scale)


def rounded_to(kind: torch.dtype, scaled: Tensor) -> Tensor:
    """Rounds numbers (fp32, already divided by the scale) to the nearest, ties to even, and saturates them.

    For e4m3, what is not finite becomes NaN. int8 has no NaN: there, NaN becomes 0.
    """
    limit = LARGEST[kind]
    if kind == torch.int8:
        return scaled.round().clamp(-limit, limit).nan_to_num(0.0).to(kind)
    return (scaled + (scaled - scaled)).clamp(-limit, limit).to(kind)


def quantised(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    """x / scale in this kind. The scale is fp32, and is broadcast."""
    return rounded_to(kind, x.float() * (1.0 / scale))
