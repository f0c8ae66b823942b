"""Computes a network's trained noise levels and the schedules of levels for samplers, as Python floats."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul

from torch import Tensor

from modules.core.errors import OptionsError
from modules.sampling.beta_distribution import beta_quantile

# Samplers that lose accuracy in the last small step before zero; they skip that step, as in ComfyUI.
_SKIP_LAST_LEVEL = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})
# The remaining signal at the last timestep of a zero-terminal-SNR model; exactly zero would give an infinite sigma.
_TERMINAL_ALPHA = 4.8973451890853435e-08
# In a longer schedule (with a smaller denoise), neighbouring levels would be indistinguishable.
_LONGEST = 10**9
# This many quantiles per trained level are enough to visit every level, since the density is at least 0.7 everywhere.
_BETA_VISITS_ALL = 2


def _stable_diffusion_alphas(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> list[float]:
    """Computes the cumulative signal power of SD1.x and SD2.x: betas are squares of evenly spaced roots."""
    low, high = math.sqrt(start), math.sqrt(end)
    betas = ((low + (high - low) * index / (steps - 1)) ** 2 for index in range(steps))
    return list(accumulate((1.0 - beta for beta in betas), mul))


def _rescale_to_zero_snr(alphas: Sequence[float]) -> list[float]:
    """Shifts and scales the signal to make the last timestep pure noise (Lin et al. 2023, algorithm 1)."""
    roots = [math.sqrt(alpha) for alpha in alphas]
    scale = roots[0] / (roots[0] - roots[-1])
    return [((root - roots[-1]) * scale) ** 2 for root in roots[:-1]] + [_TERMINAL_ALPHA]


class NoiseSchedule:
    """The noise levels (noise over signal) of all training timesteps, in rising order, for any prediction type."""

    def __init__(self, alphas_cumprod: Sequence[float] | None = None, *, zero_terminal_snr: bool = False) -> None:
        alphas = _stable_diffusion_alphas() if alphas_cumprod is None else list(alphas_cumprod)
        if zero_terminal_snr:
            alphas = _rescale_to_zero_snr(alphas)
        self.sigmas: tuple[float, ...] = tuple(math.sqrt((1.0 - alpha) / alpha) for alpha in alphas)
        self._log_sigmas = [math.log(sigma) for sigma in self.sigmas]

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1]

    def sigma_to_t(self, sigma: float) -> float:
        """Returns the whole timestep nearest in log noise, as in training (ComfyUI's rule)."""
        target = math.log(sigma)
        above = min(max(bisect_left(self._log_sigmas, target), 1), len(self.sigmas) - 1)
        below = above - 1
        nearer_below = target - self._log_sigmas[below] <= self._log_sigmas[above] - target
        return float(below if nearer_below else above)

    def t_to_sigma(self, timestep: float) -> float:
        """Returns the noise level at a timestep, with log-linear interpolation between trained levels."""
        position = min(max(timestep, 0.0), len(self.sigmas) - 1.0)
        low = math.floor(position)
        high = math.ceil(position)
        weight = position - low
        return math.exp((1.0 - weight) * self._log_sigmas[low] + weight * self._log_sigmas[high])


def _ramp(start: float, end: float, count: int, first: int) -> list[float]:
    """Returns `count` evenly spaced values from `start` to `end` inclusive (only `start` for a count of one).

    The first `first` values are left out.
    """
    return [start + (end - start) * index / max(count - 1, 1) for index in range(first, count)]


def _normal(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    return [schedule.t_to_sigma(t) for t in _ramp(len(schedule.sigmas) - 1.0, 0.0, steps, first)]


def _sgm_uniform(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    return [schedule.t_to_sigma(t) for t in _ramp(len(schedule.sigmas) - 1.0, 0.0, steps + 1, first)[:-1]]


def _karras(schedule: NoiseSchedule, steps: int, first: int, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022, equation 5."""
    roots = _ramp(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), steps, first)
    return [root**rho for root in roots]


def _exponential(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    logs = _ramp(math.log(schedule.sigma_max), math.log(schedule.sigma_min), steps, first)
    return [math.exp(log) for log in logs]


def _kl_optimal(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    """Sabour et al. 2024 ("Align Your Steps"), closed form of theorem 3.1."""
    angles = _ramp(math.atan(schedule.sigma_max), math.atan(schedule.sigma_min), steps, first)
    return [math.tan(angle) for angle in angles]


def _simple(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    steps = min(steps, len(schedule.sigmas))  # more steps would visit levels twice
    stride = len(schedule.sigmas) / steps
    return [schedule.sigmas[-1 - int(index * stride)] for index in range(steps)]


def _ddim_uniform(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    """Takes every k-th timestep from 1 upwards; gives extra levels if `steps` does not divide the table's length."""
    stride = max(len(schedule.sigmas) // steps, 1)
    return list(reversed(schedule.sigmas[1::stride]))


def _beta(schedule: NoiseSchedule, steps: int, first: int, shape: float = 0.6) -> list[float]:
    """Takes timesteps at even quantiles of a beta distribution, dense at both ends (Lee et al. 2024)."""
    steps = min(steps, _BETA_VISITS_ALL * len(schedule.sigmas))
    last = len(schedule.sigmas) - 1
    quantiles = (beta_quantile(1.0 - index / steps, shape, shape) for index in range(steps))
    return [schedule.sigmas[round(quantile * last)] for quantile in quantiles]


# levels(schedule, steps, first): the levels of a schedule of `steps` steps from number `first` on. Schedulers that
# pick from the trained levels visit some twice, so they compute all levels (a few thousand at most).
_SCHEDULERS: dict[str, Callable[[NoiseSchedule, int, int], list[float]]] = {
    "normal": _normal,
    "karras": _karras,
    "exponential": _exponential,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
    "kl_optimal": _kl_optimal,
}


def _sigmas_from(schedule: NoiseSchedule, scheduler: str, steps: int, sampler: str, first: int) -> list[float]:
    """Returns a schedule of `steps` steps; some schedulers leave out its first `first` levels."""
    skip = sampler in _SKIP_LAST_LEVEL
    levels = _SCHEDULERS[scheduler](schedule, steps + 1 if skip else steps, first)
    # Visiting a level twice would make a step of length zero, and multistep samplers divide by the length.
    levels = list(dict.fromkeys(levels))
    return [*(levels[:-1] if skip else levels), 0.0]


def make_sigmas(
    schedule: NoiseSchedule, scheduler: str, steps: int, *, sampler: str, denoise: float = 1.0
) -> list[float]:
    """Returns strictly decreasing noise levels ending in 0.0 for `steps` steps, by ComfyUI's rules.

    A `denoise` below one keeps the last part of a schedule with `steps / denoise` steps; zero leaves no steps.
    """
    if steps < 1 or not 0.0 <= denoise <= 1.0:
        raise OptionsError(f"Steps ({steps}) must be at least 1 and denoise ({denoise}) between 0 and 1.")
    if denoise == 0.0:
        return [0.0]
    if denoise > 0.9999:
        return _sigmas_from(schedule, scheduler, steps, sampler, 0)
    longer = int(min(steps / denoise, _LONGEST))
    return _sigmas_from(schedule, scheduler, longer, sampler, longer - steps)[-(steps + 1) :]


def start_latent(
    noise: Tensor, sigmas: Sequence[float], schedule: NoiseSchedule, latent: Tensor | None = None
) -> Tensor:
    """Builds the sampler's initial latent: unit `noise`, scaled to the first level, plus `latent` if given.

    At the highest level, the noise also makes up for the variance of the missing signal (ComfyUI's rule).
    """
    sigma = sigmas[0]
    from_the_top = sigma > schedule.sigma_max * (1 - 1e-5)
    scaled = noise * (math.sqrt(1.0 + sigma**2) if from_the_top else sigma)
    return scaled if latent is None else latent + scaled
