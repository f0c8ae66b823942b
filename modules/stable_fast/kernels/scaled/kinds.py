"""The two kinds of 8-bit numbers, and how a number becomes one of them: divided by a scale, rounded, saturated.

Both are symmetric: a number is q * scale. Where a scale is computed from numbers that are not all finite, it is NaN,
so that everything computed from them is NaN too.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.triton_import import FAST_MATH, jit, tl

LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
# Numbers below this count as zeros, because the reciprocal of their scale would overflow.
SMALLEST = 1e-30


def scale_for(amax: Tensor, kind: torch.dtype) -> Tensor:
    """The scale in fp32 with which numbers up to `amax` use the whole range; 1 for zeros, NaN if not finite."""
    scale = torch.where(amax <= SMALLEST, 1.0, amax * (1.0 / LARGEST[kind]))
    return torch.where(scale.isinf(), torch.nan, scale)


def rounded_to(kind: torch.dtype, scaled: Tensor) -> Tensor:
    """Rounds numbers (fp32, already divided by the scale) to the nearest, ties to even, and saturates them.

    For e4m3, what is not finite becomes NaN. int8 has no NaN: there, NaN becomes any number.
    """
    limit = LARGEST[kind]
    if kind == torch.int8:
        return scaled.round().clamp(-limit, limit).nan_to_num(0.0).to(kind)
    return (scaled + (scaled - scaled)).clamp(-limit, limit).to(kind)


def quantised(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    """x / scale in this kind. The scale is fp32, and is broadcast."""
    return rounded_to(kind, x.float() * (1.0 / scale))


@jit
def _nearest_e4m3(y):
    """The nearest number that e4m3 has, in fp32. The interpreter's conversion truncates, and loses NaN."""
    bits = y.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & 0xFFF00000).to(tl.float32, bitcast=True)
    y = tl.where(tl.abs(y) < 2**-6, (y + 24576.0) - 24576.0, normal)  # below 2^-6, steps are 2^-9
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, bits | 0x700000, y.to(tl.uint32, bitcast=True)).to(
        tl.float32, bitcast=True
    )


@jit
def _nearest_integer(y):
    """fp32 numbers up to 2^22 plus 1.5 * 2^23, which leaves no bits for a fraction: the lowest byte is the integer.

    A GPU converts numbers to integers at an eighth of the rate of additions.
    """
    if FAST_MATH:
        # Not `+`: with the multiplication before it, that would become one instruction, which rounds once.
        return tl.inline_asm_elementwise("add.rn.f32 $0, $1, 0f4B400000;", "=f,f", [y], tl.float32, True, 1)
    return y + 12582912.0


@jit
def rounded_in_kernel(scaled, INTEGER: tl.constexpr, WITHIN: tl.constexpr):
    """What `rounded_to` does to fp32 numbers: for int8 if INTEGER, else for e4m3.

    WITHIN: they are in the range, or NaN, as those are that were multiplied by the reciprocal of their own scale.
    """
    if INTEGER:
        # Since 8.6, a minimum can take the sign along, so this is one instruction.
        y = scaled if WITHIN else tl.clamp(scaled, -127.0, 127.0)
        q = _nearest_integer(y).to(tl.int32, bitcast=True).to(tl.int8)
    else:
        # Infinity becomes NaN. Subtracted from itself, a product would be contracted to its rounding error.
        y = scaled if WITHIN else scaled + scaled * 0.0
        if not FAST_MATH:  # a GPU's conversion saturates and rounds
            y = _nearest_e4m3(tl.clamp(y, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL))
        q = y.to(tl.float8e4nv)
    return q


@jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@jit
def largest_of(x, AXIS: tl.constexpr):
    """The largest magnitude along an axis; NaN if one is NaN."""
    return tl.reduce(tl.abs(x), AXIS, _larger)


@jit
def scale_in_kernel(amax, LARGEST: tl.constexpr):
    """What `scale_for` computes."""
    return tl.where(amax <= 1e-30, 1.0, (amax + amax * 0.0) * (1.0 / LARGEST))


@jit
def reciprocal(scale):
    """1 / scale in fp32, rounded correctly."""
    if FAST_MATH:
        return tl.inline_asm_elementwise("rcp.rn.f32 $0, $1;", "=f,f", [scale], tl.float32, True, 1)
    return tl.div_rn(1.0, scale)
