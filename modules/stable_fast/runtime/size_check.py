"""Checks that a program with named sizes gives the same results as its module. A size may affect more than shapes.

In a trace, sizes are whole numbers marked by primes. A branch on a size, a size in a quotient or a root, and a
constant that is divisible by a prime by chance all lead to a graph that runs at every size but is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from modules.stable_fast.store.tuning import within

# Largest difference / largest value that rounding in a whole network can explain. Eager convolutions on a GPU may
# multiply fp32 in TF32, with ten bits.
NETWORK_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
GPU_FLOAT32 = 0.02
HALF_PRECISION = 0.05


def agrees(result: Any, expected: Any) -> bool:
    """Whether all values of two results are equal except for rounding. Any value passes for one not finite."""
    pairs = zip(pytree.tree_leaves(result), pytree.tree_leaves(expected), strict=True)
    return all(_same(*pair) for pair in pairs if isinstance(pair[1], Tensor))


def _same(result: Tensor, expected: Tensor) -> bool:
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():
        return torch.equal(result, expected)
    if expected.numel() == 0:
        return True
    tolerance = NETWORK_TOLERANCES.get(expected.dtype, HALF_PRECISION)
    if expected.dtype is torch.float32 and expected.device.type != "cpu":
        tolerance = GPU_FLOAT32
    return within(result, expected, tolerance)
