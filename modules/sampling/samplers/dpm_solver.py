"""DPM-Solver (Lu et al. 2022): "fast" with fixed steps, adaptive 2(3); both end with an exact denoising step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from modules.core.progress import OnStep, StepEvent
from modules.sampling.samplers.sampler_common import Denoise, NoiseSource

_FIRST_STEP = 0.05
_RELATIVE_TOLERANCE = 0.05
_ABSOLUTE_TOLERANCE = 0.0078
_ACCEPT_FROM = 0.81


def _slope(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    return (x - denoise(x, sigma)) / sigma


def _inner_slope(denoise: Denoise, x: Tensor, slope: Tensor, sigma: float, target: float, part: float) -> Tensor:
    """Evaluates the slope a `part` of the way to `target` (in log noise), after a first-order step."""
    inner = sigma * (target / sigma) ** part
    return _slope(denoise, x + slope * (inner - sigma), inner)


def _second_order(x: Tensor, slope: Tensor, inner: Tensor, sigma: float, target: float, part: float) -> Tensor:
    return x + (slope + (inner - slope) / (2 * part)) * (target - sigma)


def _third_order(denoise: Denoise, x: Tensor, slope: Tensor, inner: Tensor, sigma: float, target: float) -> Tensor:
    """Takes a DPM-Solver-3 step with inner points at 1/3 (known slope `inner`) and 2/3."""
    step = math.log(sigma / target)
    middle = sigma * (target / sigma) ** (2 / 3)
    bend = 2.0 * (math.expm1(step * 2 / 3) / (step * 2 / 3) - 1.0)
    second = _slope(denoise, x + slope * (middle - sigma) - (inner - slope) * (middle * bend), middle)
    bend = 1.5 * (math.expm1(step) / step - 1.0)
    return x + slope * (target - sigma) - (second - slope) * (target * bend)


def _step_of_order(denoise: Denoise, x: Tensor, slope: Tensor, sigma: float, target: float, order: int) -> Tensor:
    if order == 1:
        return x + slope * (target - sigma)
    part = 1 / order
    inner = _inner_slope(denoise, x, slope, sigma, target, part)
    if order == 2:
        return _second_order(x, slope, inner, sigma, target, part)
    return _third_order(denoise, x, slope, inner, sigma, target)


def _fast_orders(evaluations: int) -> list[int]:
    """Plans third-order steps while the budget lasts, then lower-order ones (section 3.3 of the paper)."""
    if evaluations % 3:
        return [3] * (evaluations // 3) + [evaluations % 3]
    return [3] * (evaluations // 3 - 1) + [2, 1] if evaluations else []


def sample_dpm_fast(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """Evaluates once per step of `sigmas`, but uses only the range of `sigmas`: the levels in between differ."""
    evaluations = len(sigmas) - 1
    orders = _fast_orders(max(evaluations - 1, 0))
    for index, (order, used) in enumerate(zip(orders, accumulate(orders), strict=True)):
        sigma, target = (
            sigmas[0] * (sigmas[-2] / sigmas[0]) ** (position / len(orders)) for position in (index, index + 1)
        )
        slope = _slope(denoise, x, sigma)
        denoised = x - slope * sigma
        x = _step_of_order(denoise, x, slope, sigma, target, order)
        if on_step is not None:
            on_step(StepEvent(step=used, steps=evaluations, sigma=sigma, denoised=denoised))
    if evaluations:
        x = denoise(x, sigmas[-2])
        if on_step is not None:
            on_step(StepEvent(step=evaluations, steps=evaluations, sigma=sigmas[-2], denoised=x))
    return x


def _adapt(denoise: Denoise, x: Tensor, start: float, end: float, tell: Callable[[float, Tensor], None]) -> Tensor:
    """Samples one image from `start` to `end`; the difference between second and third order limits each step."""
    sigma, length, previous = start, _FIRST_STEP, x
    while math.log(sigma / end) > 1e-5:
        target = max(end, sigma * math.exp(-length))
        slope = _slope(denoise, x, sigma)
        inner = _inner_slope(denoise, x, slope, sigma, target, 1 / 3)
        low = _second_order(x, slope, inner, sigma, target, 1 / 3)
        high = _third_order(denoise, x, slope, inner, sigma, target)
        allowed = torch.clamp(torch.maximum(low.abs(), previous.abs()) * _RELATIVE_TOLERANCE, min=_ABSOLUTE_TOLERANCE)
        # The only place where sampling waits for the device: the next step's length depends on this number.
        error = float(((low - high) / allowed).square().mean().sqrt())
        if not math.isfinite(error):
            return high  # invalid numbers would be rejected forever; the check of the finished picture reports them
        factor = 1.0 + math.atan((error + 1e-8) ** (-1 / 3) - 1.0)
        length *= factor
        tell(sigma, x - slope * sigma)
        if factor >= _ACCEPT_FROM:
            x, previous, sigma = high, low, target
    return x


def sample_dpm_adaptive(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, noise: NoiseSource, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver-23 with error control, over the range of `sigmas` only.

    Every image has its own step lengths, so that it does not depend on the rest of the batch. All rows of an evaluation
    share a level, so images are sampled one after another, each filling all rows.
    Only a batch of one wastes no work.
    """
    steps, rows = len(sigmas) - 1, x.shape[0]
    if not steps:
        return x
    start, end = sigmas[0], sigmas[-2]
    finished: list[Tensor] = []
    for row in range(rows):

        def alone(own: Tensor, sigma: float, row: int = row) -> Tensor:
            return denoise(own.repeat(rows, *[1] * (own.ndim - 1)), sigma)[row : row + 1]

        def tell(sigma: float, denoised: Tensor, row: int = row) -> None:
            if on_step is not None:
                done = (row + math.log(start / sigma) / max(math.log(start / end), 1e-5)) / rows
                shown = torch.cat([*finished, *[denoised] * (rows - row)])
                on_step(StepEvent(step=1 + int(done * (steps - 1)), steps=steps, sigma=sigma, denoised=shown))

        own = _adapt(alone, x[row : row + 1], start, end, tell)
        finished.append(alone(own, end))
    result = torch.cat(finished)
    if on_step is not None:
        on_step(StepEvent(step=steps, steps=steps, sigma=end, denoised=result))
    return result
