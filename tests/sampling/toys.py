"""Denoisers with known answers, scripted noise, and a recorder for a sampler's states."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Gaussian:
    """The exact denoiser of data with standard deviation `spread`; its flow keeps x / sqrt(spread^2 + sigma^2)."""

    def __init__(self, spread: float = 1.0) -> None:
        self.spread = spread

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return x * (self.spread**2 / (self.spread**2 + sigma**2))

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self(x, sigma), self(x, sigma)

    def flow(self, x: Tensor, sigma: float, target: float) -> Tensor:
        return x * math.sqrt((self.spread**2 + target**2) / (self.spread**2 + sigma**2))


class Curved:
    """An arbitrary smooth, nonlinear denoiser, in which each element depends on its neighbours."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        scaled = x / math.sqrt(1 + sigma**2)
        return torch.sin(scaled) * 0.8 + torch.tanh(scaled.roll(1, -1)) * (0.5 / (1 + sigma))

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self(x, sigma), torch.cos(x / math.sqrt(1 + sigma**2)) * 0.6

    def slope(self, x: Tensor, sigma: float) -> Tensor:
        """Returns the noise prediction that corresponds to the clean prediction."""
        return (x - self(x, sigma)) / sigma


class Recorded:
    """Wraps a denoiser and records the state and level of every call."""

    def __init__(self, denoise: Callable[[Tensor, float], Tensor]) -> None:
        self.denoise = denoise
        self.states: list[Tensor] = []
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.states.append(x.clone())
        self.levels.append(sigma)
        return self.denoise(x, sigma)

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        self(x, sigma)
        return self.denoise.with_unconditional(x, sigma)  # type: ignore[attr-defined]


class Scripted:
    """Noise from a seeded float64 list that an oracle can share; Brownian increments come from the same list."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.shape = shape
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> Tensor:
        return torch.randn(self.shape, generator=self.generator, dtype=torch.float64)

    def brownian(self, sigma_min: float, sigma_max: float) -> Callable[[float, float], Tensor]:
        return lambda sigma, sigma_next: self.step()


class Axes:
    """Noise whose n-th draw is the n-th unit vector. With a linear denoiser, the result shows how much of each is left.

    The first axis is the starting noise; the sum of squares of the result is then the exact variance of the samples.
    Brownian increments are exact too: one axis for each interval between the `times` that a sampler may use.
    """

    def __init__(self, size: int, times: list[float]) -> None:
        self.size = size
        self.times = sorted(times)
        self.drawn = 0

    def step(self) -> Tensor:
        self.drawn += 1
        noise = torch.zeros(1, self.size, dtype=torch.float64)
        noise[0, self.drawn] = 1.0
        return noise

    def brownian(self, sigma_min: float, sigma_max: float) -> Callable[[float, float], Tensor]:
        def increment(sigma: float, sigma_next: float) -> Tensor:
            noise = torch.zeros(1, self.size, dtype=torch.float64)
            for axis, (low, high) in enumerate(zip(self.times, self.times[1:], strict=False), start=1):
                if low > sigma_next * (1 - 1e-9) and high < sigma * (1 + 1e-9):
                    noise[0, axis] = math.sqrt(high - low)
            return noise / math.sqrt(sigma - sigma_next)

        return increment


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def geometric(start: float, end: float, steps: int) -> list[float]:
    """Returns `steps` equal steps in log noise, then zero."""
    return [start * (end / start) ** (index / steps) for index in range(steps + 1)] + [0.0]


def trained_levels() -> np.ndarray:
    """Returns the noise levels of SD1.x to SDXL by their formula."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return np.sqrt((1 - alphas) / alphas)
