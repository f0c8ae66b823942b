"""What samplers share: the shapes of their arguments, ancestral steps, moving noise, telling the outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Protocol

from torch import Tensor

from modules.core.progress import OnStep, StepEvent


class Denoise(Protocol):
    """The predicted clean latent of x = clean + sigma * noise."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class PairDenoise(Denoise, Protocol):
    """A denoiser that can also show its unconditional half, as CFG++ needs."""

    def with_unconditional(self, x: Tensor, sigma: float, /) -> tuple[Tensor, Tensor]:
        """(guided, unconditional)"""
        ...


class NoiseSource(Protocol):
    """Where a sampler takes fresh noise from (`noise.ImageNoise`)."""

    def step(self) -> Tensor:
        """Unit noise, new at each call."""
        ...

    def brownian(self, sigma_min: float, sigma_max: float) -> Callable[[float, float], Tensor]:
        """Unit noise of consistent Brownian increments between two levels."""
        ...


def ancestral_step(sigma: float, sigma_next: float) -> tuple[float, float]:
    """The level to step down to and the noise to add, so that both together end at `sigma_next`."""
    up = sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
    return sigma_next**2 / sigma, up


def move(noise: Tensor, x: Tensor) -> Tensor:
    """CPU noise at the device and type of x, without making the host wait for the device."""
    if x.device.type != "cuda":
        return noise.to(x)
    return noise.pin_memory().to(device=x.device, non_blocking=True).to(x.dtype)


def brownian_noise(noise: NoiseSource, sigmas: list[float], x: Tensor) -> Callable[[float, float], Tensor]:
    """Brownian noise over the levels of a schedule, at the device and type of x; paths are made when first needed."""

    @cache
    def paths() -> Callable[[float, float], Tensor]:
        return noise.brownian(min(sigma for sigma in sigmas if sigma > 0), sigmas[0])

    return lambda sigma, sigma_next: move(paths()(sigma, sigma_next), x)


def report(on_step: OnStep | None, sigmas: list[float], index: int, denoised: Tensor) -> None:
    """Tells the outside that step `index` (from 0) of a schedule is done."""
    if on_step is not None:
        on_step(StepEvent(step=index + 1, steps=len(sigmas) - 1, sigma=sigmas[index], denoised=denoised))
