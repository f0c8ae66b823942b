"""UniPC (Zhao et al. 2023): a multistep predictor in which each evaluation also corrects the previous step for free."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from modules.core.progress import OnStep
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource, report

_MAX_ORDER = 3

# A noise level and the clean prediction at this level.
Evaluation = tuple[float, Tensor]


def _weights(ratios: list[float], step: float, scale: float) -> list[float]:
    """Computes a step's weight for each divided difference, for evaluations at `ratios` of the step (in log noise)."""
    if len(ratios) == 1:
        return [0.5]  # the paper's value for a single difference at any scale
    right: list[float] = []
    factorial = 1.0
    phi = math.expm1(-step) / -step - 1.0
    for power in range(1, len(ratios) + 1):
        factorial *= power
        right.append(-phi * factorial / scale)
        phi = phi / -step - 1.0 / (factorial * (power + 1))
    matrix = [[ratio**power for ratio in ratios] for power in range(len(ratios))]
    solution = torch.linalg.solve(
        torch.tensor(matrix, dtype=torch.float64, device="cpu"), torch.tensor(right, dtype=torch.float64, device="cpu")
    )
    return [float(weight) for weight in solution]


def _step(
    x: Tensor, history: list[Evaluation], target: float, scale: Callable[[float], float], ahead: Tensor | None = None
) -> Tensor:
    """Steps from x at `history`'s latest level to `target`: a corrector step with `ahead`, else a predictor step."""
    sigma, base = history[0]
    step = math.log(sigma / target)
    ratios = [math.log(sigma / older) / step for older, _ in history[1:]]
    changes = [(value - base) / ratio for (_, value), ratio in zip(history[1:], ratios, strict=True)]
    if ahead is not None:
        ratios.append(1.0)
        changes.append(ahead - base)
    x = torch.lerp(base, x, target / sigma)
    if changes:
        weights = _weights(ratios, step, scale(step))
        for change, weight in zip(changes, weights, strict=True):
            x = x + change * (weight * scale(step))
    return x


def _sample(
    denoise: Denoise, x: Tensor, sigmas: list[float], scale: Callable[[float], float], on_step: OnStep | None
) -> Tensor:
    history: list[Evaluation] = []  # newest first
    before, order = x, 0
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if history:
            x = _step(before, history[:order], sigma, scale, ahead=denoised)
        history = [(sigma, denoised), *history[: _MAX_ORDER - 1]]
        # The order decreases towards the end: the last steps are the longest in log noise.
        order = min(len(history), len(sigmas) - 1 - index)
        before = x
        x = _step(x, history[:order], sigma_next, scale) if sigma_next > 0 else denoised
        report(on_step, sigmas, index, denoised)
    return x


def sample_uni_pc(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """UniPC of order 3 with B(h) = h."""
    return _sample(denoise, x, sigmas, lambda step: step, on_step)


def sample_uni_pc_bh2(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """UniPC of order 3 with B(h) = 1 - exp(-h)."""
    return _sample(denoise, x, sigmas, lambda step: -math.expm1(-step), on_step)
