"""Evaluates a Brownian path at arbitrary times in any order; the same seed always gives the same path."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 2**64 - 1
# Leaves are this many times narrower than the smallest noise level, enough to separate steps of any real schedule.
_LEAVES_PER_SIGMA_MIN = 256


def _mix(value: int) -> int:
    """Scrambles 64 bits bijectively (splitmix64's finaliser), so that neighbours become unrelated numbers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _node_seed(seed: int, node: int) -> int:
    # torch's CPU generator uses only the low 32 bits, hence the second mix instead of a sum.
    return _mix(_mix((seed + 0x9E3779B97F4A7C15) & _MASK) ^ node) & 0xFFFFFFFF


class BrownianPath:
    """W on [low, high] with W(low) = 0, as a virtual binary tree: each node's midpoint has its own seed.

    Values at times in different leaves have exactly the joint distribution of Brownian motion. Within a leaf, a single
    normal variable determines the whole bridge. Each value has the exact variance, but values at two times in the same
    leaf are too strongly correlated, so leaves are narrow.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], low: float, high: float) -> None:
        self._seed = seed
        self._shape = shape
        self._low = low
        self._high = high
        leaves = max((high - low) / low * _LEAVES_PER_SIGMA_MIN, 1.0)
        self._depth = math.ceil(math.log2(leaves))
        self._generator = torch.Generator()
        self._end: Tensor | None = None
        # The last visited node on each level: samplers move in one direction, so most of each descent can be reused.
        self._midpoints: list[tuple[int, Tensor] | None] = [None] * self._depth
        self._recent: dict[float, Tensor] = {}

    def __call__(self, time: float) -> Tensor:
        """Returns W(time) as CPU fp32; the last few values are cached, since consecutive steps share a time."""
        if time not in self._recent:
            if len(self._recent) == 4:
                del self._recent[next(iter(self._recent))]
            self._recent[time] = self._descend(min(max(time, self._low), self._high))
        return self._recent[time]

    def _normal(self, node: int) -> Tensor:
        return torch.randn(self._shape, generator=self._generator.manual_seed(_node_seed(self._seed, node)))

    def _descend(self, time: float) -> Tensor:
        width = self._high - self._low
        if self._end is None:
            self._end = self._normal(0) * math.sqrt(width)
        left, left_value, right_value = self._low, torch.zeros(self._shape), self._end
        node = 1  # heap numbering: children of n are 2n and 2n + 1
        for level in range(self._depth):
            midpoint = self._midpoint(level, node, left_value, right_value, width)
            width /= 2
            if time < left + width:
                node, right_value = 2 * node, midpoint
            else:
                node, left_value, left = 2 * node + 1, midpoint, left + width
        return self._bridge(node, left_value, right_value, width, (time - left) / width)

    def _midpoint(self, level: int, node: int, left: Tensor, right: Tensor, width: float) -> Tensor:
        known = self._midpoints[level]
        if known is None or known[0] != node:
            known = (node, self._bridge(node, left, right, width, 0.5))
            self._midpoints[level] = known
        return known[1]

    def _bridge(self, node: int, left: Tensor, right: Tensor, width: float, fraction: float) -> Tensor:
        """Draws a point on the Brownian bridge between two known values."""
        spread = math.sqrt(max(fraction * (1.0 - fraction), 0.0) * width)
        return torch.lerp(left, right, fraction) + self._normal(node) * spread
