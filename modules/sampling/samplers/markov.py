"""Samplers defined by a distribution of the next latent: DDPM, DDIM, LCM and TCD."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.euler import sample_euler
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource, move, report
from modules.sampling.trained_noise import NoiseSchedule, noise_schedule


def sample_ddpm(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Draws from the posterior of the next level, given x and its clean prediction (Ho et al. 2020, equation 7)."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        kept = (sigma_next / sigma) ** 2
        x = torch.lerp(denoised, x, kept)
        if sigma_next > 0:
            x = x + move(noise.step(), x) * (sigma_next * math.sqrt(1.0 - kept))
        report(on_step, sigmas, index, denoised)
    return x


def sample_ddim(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DDIM without noise (Song et al. 2020); with x at this scale, the update is the same as Euler's."""
    return sample_euler(denoise, x, sigmas, noise=noise, on_step=on_step)


def sample_lcm(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023): jumps to the clean latent and adds the next level's noise."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        x = denoised
        if sigma_next > 0:
            x = x + move(noise.step(), x) * sigma_next
        report(on_step, sigmas, index, denoised)
    return x


def sample_tcd(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    *,
    noise: NoiseSource,
    on_step: OnStep | None = None,
    trained: NoiseSchedule | None = None,
    gamma: float = 0.3,
) -> Tensor:
    """Trajectory consistency sampling (Zheng et al. 2024, algorithm 4), also called strategic stochastic sampling.

    It jumps to the timestep 1 - gamma times the next one, and adds noise up to the next level. `trained` relates levels
    and timesteps (default: those of SD1.x to SDXL). At gamma 0 this is DDIM, at 1 nearly LCM.
    """
    trained = trained or noise_schedule()
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down = min(trained.sigmas[int((1.0 - gamma) * trained.nearest(sigma_next))], sigma_next) if sigma_next else 0.0
        x = torch.lerp(denoised, x, down / sigma)
        if sigma_next > 0:
            x = x + move(noise.step(), x) * math.sqrt(sigma_next**2 - down**2)
        report(on_step, sigmas, index, denoised)
    return x
