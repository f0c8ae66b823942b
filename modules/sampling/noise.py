"""Draws all noise from one CPU stream and one Brownian path per image, regardless of batch and device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from modules.sampling.brownian import BrownianPath

BrownianNoise = Callable[[float, float], Tensor]


class PassNoise(Protocol):
    """All noise of one pass, for each row of a batch."""

    def start(self) -> Tensor:
        """Returns the initial noise, the same on every call."""
        ...

    def step(self) -> Tensor:
        """Draws fresh noise on every call."""
        ...

    def brownian(self, sigma_min: float, sigma_max: float) -> BrownianNoise:
        """Returns unit noise from consistent Brownian increments between two levels."""
        ...


class ImageNoise:
    """Unit Gaussian noise for a batch, always CPU fp32; row i depends only on `seeds[i]`."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self._seeds = list(seeds)
        self._shape = shape
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        # Always drawn first: a picture's later noise must not depend on whether the initial noise is used.
        self._start = self.step()

    def start(self) -> Tensor:
        """Returns the initial noise [N, *shape], the same on every call."""
        return self._start

    def step(self) -> Tensor:
        """Draws fresh noise [N, *shape] on every call."""
        return torch.stack([torch.randn(self._shape, generator=generator) for generator in self._generators])

    def brownian(self, sigma_min: float, sigma_max: float) -> BrownianNoise:
        """Returns f(a, b), the increment from level a to b of one Brownian path per image, scaled to unit variance."""
        paths = [BrownianPath(seed, self._shape, sigma_min, sigma_max) for seed in self._seeds]

        def increment(sigma_from: float, sigma_to: float) -> Tensor:
            scale = 1.0 / math.sqrt(abs(sigma_to - sigma_from))
            return torch.stack([path(sigma_to) - path(sigma_from) for path in paths]) * scale

        return increment


class CroppedNoise:
    """The noise of equal parts of pictures, cut out of each picture's noise: parts that overlap have it in common.

    `places` are the upper and left edge of each part, `size` its height and width in cells. The rows are place by
    place, and within a place in the order of the pictures.
    """

    def __init__(self, whole: ImageNoise, places: Sequence[tuple[int, int]], size: tuple[int, int]) -> None:
        self._whole = whole
        self._places = places
        self._size = size

    def start(self) -> Tensor:
        return self._cut(self._whole.start())

    def step(self) -> Tensor:
        return self._cut(self._whole.step())

    def brownian(self, sigma_min: float, sigma_max: float) -> BrownianNoise:
        increment = self._whole.brownian(sigma_min, sigma_max)
        return lambda sigma_from, sigma_to: self._cut(increment(sigma_from, sigma_to))

    def _cut(self, noise: Tensor) -> Tensor:
        height, width = self._size
        return torch.cat([noise[..., top : top + height, left : left + width] for top, left in self._places])
