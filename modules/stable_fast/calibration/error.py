"""How far a step in eight bits is from the network's own step: whether a checkpoint bears them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def step_error(found: Tensor, eager: Callable[[], Any]) -> float | None:
    """The error relative to what `eager` returns (or its first value), by the norms of both; infinite if not finite.

    None if there is not enough memory for the eager step.
    """
    try:
        returned = eager()
    except torch.OutOfMemoryError:
        return None
    expected = (returned[0] if isinstance(returned, tuple) else returned).float()
    error = float((found.float() - expected).norm() / expected.norm())
    return error if math.isfinite(error) else math.inf
