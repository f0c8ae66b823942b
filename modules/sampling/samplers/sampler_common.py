"""Code shared by samplers: argument types, ancestral steps, noise on the device, progress events."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Protocol

from torch import Tensor

from modules.core.device import sent
from modules.core.progress import OnStep, StepEvent


class Denoise(Protocol):
    """Predicts the clean latent of x = clean + sigma * noise."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class PairDenoise(Denoise, Protocol):
    """A denoiser that can also return the unconditional prediction, as needed for CFG++."""

    def with_unconditional(self, x: Tensor, sigma: float, /) -> tuple[Tensor, Tensor]:
        """Returns (guided, unconditional)."""
        ...


class NoiseSource(Protocol):
    """The source of a sampler's fresh noise (`noise.ImageNoise`)."""

    def step(self) -> Tensor:
        """Draws new unit noise on every call."""
        ...

    def brownian(self, sigma_min: float, sigma_max: float) -> Callable[[float, float], Tensor]:
        """Returns unit noise from consistent Brownian increments between two levels."""
        ...


def ancestral_step(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Returns the level to step down to, and the noise to add to reach `sigma_next`."""
    up = sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
    return sigma_next**2 / sigma, up


def move(noise: Tensor, x: Tensor) -> Tensor:
    """Moves CPU noise to the device and dtype of x without making the host wait."""
    return sent(noise, x.device).to(x.dtype)


def brownian_noise(noise: NoiseSource, sigmas: list[float], x: Tensor) -> Callable[[float, float], Tensor]:
    """Returns Brownian noise over a schedule's levels, with x's device and dtype; paths are created on first use."""

    @cache
    def paths() -> Callable[[float, float], Tensor]:
        return noise.brownian(min(sigma for sigma in sigmas if sigma > 0), sigmas[0])

    return lambda sigma, sigma_next: move(paths()(sigma, sigma_next), x)


def report(on_step: OnStep | None, sigmas: list[float], index: int, denoised: Tensor) -> None:
    """Reports that step `index` (from 0) of a schedule is done."""
    if on_step is not None:
        on_step(StepEvent(step=index + 1, steps=len(sigmas) - 1, sigma=sigmas[index], denoised=denoised))
