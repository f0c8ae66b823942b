"""Deterministic samplers that reuse earlier evaluations: LMS and DPM-Solver++(2M)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource, report


def lms_coefficients(sigmas: list[float], index: int, order: int) -> list[float]:
    """Integrates Lagrange polynomials to weight the last `order` slopes (newest first) in step `index`.

    Two Gauss-Legendre nodes integrate polynomials of up to third degree exactly, so `order` may be up to 4.
    """
    start, end = sigmas[index], sigmas[index + 1]
    centre, half = (start + end) / 2, (end - start) / 2
    nodes = [sigmas[index - lag] for lag in range(order)]
    offset = half / math.sqrt(3)
    return [
        half * sum(_lagrange(nodes, own, point) for point in (centre - offset, centre + offset)) for own in range(order)
    ]


def _lagrange(nodes: list[float], own: int, point: float) -> float:
    return math.prod((point - node) / (nodes[own] - node) for k, node in enumerate(nodes) if k != own)


def sample_lms(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Linear multistep method (Adams-Bashforth) of order 4 on uneven levels."""
    slopes: list[Tensor] = []  # newest first
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[:3]]
        if sigma_next > 0:
            weights = lms_coefficients(sigmas, index, len(slopes))
            x = x + sum((slope * weight for slope, weight in zip(slopes, weights, strict=True)), torch.zeros_like(x))
        else:
            x = denoised
        report(on_step, sigmas, index, denoised)
    return x


def sample_dpmpp_2m(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2)."""
    previous: Tensor | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        target = denoised
        if previous is not None and sigma_next > 0:
            ratio = math.log(sigma / sigma_next) / math.log(sigmas[index - 1] / sigma)
            target = denoised + (denoised - previous) * (ratio / 2)
        x = torch.lerp(target, x, sigma_next / sigma)
        previous = denoised
        report(on_step, sigmas, index, denoised)
    return x
