"""Stochastic solvers of the DPM-Solver++ family: 2S ancestral, SDE, 2M SDE and 3M SDE."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource, ancestral_step, brownian_noise, move, report


def sample_dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes DPM-Solver++(2S) steps to below the next level, then adds fresh noise."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next > 0:
            down, up = ancestral_step(sigma, sigma_next)
            middle = math.sqrt(sigma * down)
            denoised_middle = denoise(torch.lerp(denoised, x, middle / sigma), middle)
            x = torch.lerp(denoised_middle, x, down / sigma) + move(noise.step(), x) * up
        else:
            x = denoised
        report(on_step, sigmas, index, denoised)
    return x


def sample_dpmpp_sde(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++ for the SDE, with two evaluations per step; both halves use the same Brownian path."""
    increment = brownian_noise(noise, sigmas, x)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next > 0:
            middle = math.sqrt(sigma * sigma_next)
            down, up = ancestral_step(sigma, middle)
            x_middle = torch.lerp(denoised, x, down / sigma) + increment(sigma, middle) * up
            down, up = ancestral_step(sigma, sigma_next)
            x = torch.lerp(denoise(x_middle, middle), x, down / sigma) + increment(sigma, sigma_next) * up
        else:
            x = denoised
        report(on_step, sigmas, index, denoised)
    return x


def sample_dpmpp_2m_sde(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M) for the SDE, midpoint form (Lu et al. 2022, appendix)."""
    increment = brownian_noise(noise, sigmas, x)
    previous: Tensor | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next > 0:
            target = denoised
            if previous is not None:
                ratio = math.log(sigma / sigma_next) / math.log(sigmas[index - 1] / sigma)
                target = denoised + (denoised - previous) * (ratio / 2)
            kept = (sigma_next / sigma) ** 2
            x = torch.lerp(target, x, kept) + increment(sigma, sigma_next) * (sigma_next * math.sqrt(1.0 - kept))
        else:
            x = denoised
        previous = denoised
        report(on_step, sigmas, index, denoised)
    return x


def _third_order_change(history: list[Tensor], steps: list[float]) -> Tensor:
    """Returns the higher-order correction to a step, from the trend of recent predictions.

    `steps` are lengths in log noise. Both sequences are newest first.
    """
    length = 2.0 * steps[0]  # the SDE's exponential is twice as fast as the ODE's
    phi_2 = math.expm1(-length) / length + 1.0
    trend = (history[0] - history[1]) * (steps[0] / steps[1])
    if len(history) == 2:
        return trend * phi_2
    older_trend = (history[1] - history[2]) * (steps[0] / steps[2])
    r_0, r_1 = steps[1] / steps[0], steps[2] / steps[0]
    curvature = (trend - older_trend) / (r_0 + r_1)
    # Every implementation in use weights the curvature with half its integral, and pictures depend on this factor.
    return (trend + curvature * r_0) * phi_2 - curvature * (phi_2 / length - 0.5)


def sample_dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(3M) for the SDE, with a parabola through the last three predictions."""
    increment = brownian_noise(noise, sigmas, x)
    history: list[Tensor] = []  # newest first
    steps: list[float] = []
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next > 0:
            history = [denoised, *history[:2]]
            steps = [math.log(sigma / sigma_next), *steps[:2]]
            kept = (sigma_next / sigma) ** 2
            x = torch.lerp(denoised, x, kept) + increment(sigma, sigma_next) * (sigma_next * math.sqrt(1.0 - kept))
            if len(history) > 1:
                x = x + _third_order_change(history, steps)
        else:
            x = denoised
        report(on_step, sigmas, index, denoised)
    return x
