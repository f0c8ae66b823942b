"""Samplers that follow the slope (x - denoised) / sigma: Euler, Heun and DPM2, with or without fresh noise."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource, ancestral_step, move, report

# An Euler step from sigma to sigma_next is lerp(denoised, x, sigma_next / sigma): exactly `denoised` at zero.


def sample_euler(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes Euler steps of the probability flow (Karras et al. 2022, algorithm 1)."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        x = torch.lerp(denoised, x, sigma_next / sigma)
        report(on_step, sigmas, index, denoised)
    return x


def sample_euler_ancestral(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes Euler steps to below the next level, then adds fresh noise."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, up = ancestral_step(sigma, sigma_next)
        x = torch.lerp(denoised, x, down / sigma)
        if sigma_next > 0:
            x = x + move(noise.step(), x) * up
        report(on_step, sigmas, index, denoised)
    return x


def sample_heun(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes Heun steps (Karras et al. 2022, algorithm 1 with its correction)."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        euler = torch.lerp(denoised, x, sigma_next / sigma)
        if sigma_next > 0:
            slope = (x - denoised) / sigma
            slope_next = (euler - denoise(euler, sigma_next)) / sigma_next
            x = x + (slope + slope_next) * ((sigma_next - sigma) / 2)
        else:
            x = euler
        report(on_step, sigmas, index, denoised)
    return x


def sample_heunpp2(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Heun++ (first order): looks up to two levels ahead and weights slopes by their levels, like ComfyUI."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        ahead = [level for level in sigmas[index + 1 : index + 3] if level > 0]
        slopes = [(x - denoised) / sigma]
        position, level = x, sigma
        for level_next in ahead:
            position = position + slopes[-1] * (level_next - level)
            level = level_next
            slopes.append((position - denoise(position, level)) / level)
        if ahead:
            weights = [level / (len(slopes) * sigmas[0]) for level in ahead]
            first = slopes[0] * (1.0 - sum(weights))
            later = [slope * weight for slope, weight in zip(slopes[1:], weights, strict=True)]
            x = x + sum(later, first) * (sigma_next - sigma)
        else:
            x = denoised
        report(on_step, sigmas, index, denoised)
    return x


def _midpoint_step(denoise: Denoise, x: Tensor, denoised: Tensor, sigma: float, target: float) -> Tensor:
    """Takes a DPM-Solver-2 step to `target`, with the slope at the geometric mean of the levels."""
    middle = math.sqrt(sigma * target)
    x_middle = torch.lerp(denoised, x, middle / sigma)
    return x + (x_middle - denoise(x_middle, middle)) * ((target - sigma) / middle)


def sample_dpm_2(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes steps like DPM-Solver-2, with the midpoint in log noise (Karras et al. 2022, Lu et al. 2022)."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        x = _midpoint_step(denoise, x, denoised, sigma, sigma_next) if sigma_next > 0 else denoised
        report(on_step, sigmas, index, denoised)
    return x


def sample_dpm_2_ancestral(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Takes DPM2 steps to below the next level, then adds fresh noise."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next > 0:
            down, up = ancestral_step(sigma, sigma_next)
            x = _midpoint_step(denoise, x, denoised, sigma, down) + move(noise.step(), x) * up
        else:
            x = denoised
        report(on_step, sigmas, index, denoised)
    return x
