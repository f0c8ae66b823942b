"""CFG++ samplers (Chung et al. 2024), which step to the guided prediction with the unconditional prediction's noise."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.sampler_common import (
    NoiseSource,
    PairDenoise,
    ancestral_step,
    brownian_noise,
    move,
    report,
)


def _renoise(guided: Tensor, unconditional: Tensor, x: Tensor, kept: float) -> Tensor:
    """Returns the guided clean latent plus the fraction `kept` of x's unconditional noise."""
    return guided if kept == 0.0 else guided + (x - unconditional) * kept


def sample_euler_cfg_pp(
    denoise: PairDenoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DDIM with CFG++ (the paper's algorithm 2)."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, unconditional = denoise.with_unconditional(x, sigma)
        x = _renoise(guided, unconditional, x, sigma_next / sigma)
        report(on_step, sigmas, index, guided)
    return x


def sample_euler_ancestral_cfg_pp(
    denoise: PairDenoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes Euler CFG++ steps to below the next level, then adds fresh noise."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, unconditional = denoise.with_unconditional(x, sigma)
        down, up = ancestral_step(sigma, sigma_next)
        x = _renoise(guided, unconditional, x, down / sigma)
        if sigma_next > 0:
            x = x + move(noise.step(), x) * up
        report(on_step, sigmas, index, guided)
    return x


def sample_dpmpp_2m_cfg_pp(
    denoise: PairDenoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M) with CFG++; the trend comes from the unconditional predictions, as in the paper's code."""
    previous: Tensor | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, unconditional = denoise.with_unconditional(x, sigma)
        kept = sigma_next / sigma
        x = _renoise(guided, unconditional, x, kept)
        if previous is not None and sigma_next > 0:
            ratio = math.log(sigma / sigma_next) / math.log(sigmas[index - 1] / sigma)
            x = x + (unconditional - previous) * ((1.0 - kept) * ratio / 2)
        previous = unconditional
        report(on_step, sigmas, index, guided)
    return x


def sample_dpmpp_sde_cfg_pp(
    denoise: PairDenoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++ for the SDE with CFG++'s renoising in both halves; an extension of the paper, which ends with 2S."""
    increment = brownian_noise(noise, sigmas, x)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        guided, unconditional = denoise.with_unconditional(x, sigma)
        if sigma_next > 0:
            middle = math.sqrt(sigma * sigma_next)
            down, up = ancestral_step(sigma, middle)
            x_middle = _renoise(guided, unconditional, x, down / sigma) + increment(sigma, middle) * up
            guided_middle, unconditional_middle = denoise.with_unconditional(x_middle, middle)
            down, up = ancestral_step(sigma, sigma_next)
            x = _renoise(guided_middle, unconditional_middle, x, down / sigma) + increment(sigma, sigma_next) * up
        else:
            x = guided
        report(on_step, sigmas, index, guided)
    return x
