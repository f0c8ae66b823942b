"""Samplers defined by a distribution of the next latent: DDPM, DDIM and LCM."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.euler import sample_euler
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource, move, report


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
