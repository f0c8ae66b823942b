"""Computes the schedules of noise levels for samplers, as Python floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from modules.core.errors import OptionsError
from modules.sampling.beta_distribution import beta_quantile
from modules.sampling.trained_noise import NoiseSchedule, log_linear

# Samplers that lose accuracy in the last small step before zero; they skip that step, as in ComfyUI.
_SKIP_LAST_LEVEL = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})
# Samplers of models that were distilled at whole timesteps. With "sgm_uniform" they visit these timesteps exactly (999,
# 749, 499 and 249 for four steps), which are those of "simple". The real numbers in between would be up to one off.
_WHOLE_TIMESTEPS = frozenset({"lcm", "tcd"})
# The timesteps of "Align Your Steps" for ten steps, and the end of the last step. SD2.x takes those of SD1.x.
_AYS_SD = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0)
_AYS_SDXL = (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0)
# In a longer schedule (with a smaller denoise), neighbouring levels would be indistinguishable.
_LONGEST = 10**9
# This many quantiles per trained level are enough to visit every level, since the density is at least 0.7 everywhere.
_BETA_VISITS_ALL = 2


def _ramp(start: float, end: float, count: int, first: int) -> list[float]:
    """Returns `count` evenly spaced values from `start` to `end` inclusive (only `start` for a count of one).

    The first `first` values are left out.
    """
    return [start + (end - start) * index / max(count - 1, 1) for index in range(first, count)]


def _normal(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    return [schedule.level_at(t) for t in _ramp(len(schedule.sigmas) - 1.0, 0.0, steps, first)]


def _sgm_uniform(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    return [schedule.level_at(t) for t in _ramp(len(schedule.sigmas) - 1.0, 0.0, steps + 1, first)[:-1]]


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


def _ays(schedule: NoiseSchedule, steps: int, first: int) -> list[float]:
    """Interpolates NVIDIA's ten steps for this family (Sabour et al. 2024, "Align Your Steps") in log noise."""
    if schedule.continuous:
        raise OptionsError(
            "The scheduler ays has no steps for checkpoints that predict EDM: choose another, such as karras."
        )
    timesteps = _AYS_SDXL if "SDXL" in schedule.family else _AYS_SD
    knots = [math.log(schedule.sigmas[timestep]) for timestep in timesteps]
    return [log_linear(knots, position) for position in _ramp(0.0, len(knots) - 1.0, steps + 1, first)[:-1]]


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
    "ays": _ays,
}


def _sigmas_from(schedule: NoiseSchedule, scheduler: str, steps: int, sampler: str, first: int) -> list[float]:
    """Returns a schedule of `steps` steps; some schedulers leave out its first `first` levels."""
    skip = sampler in _SKIP_LAST_LEVEL
    if scheduler == "sgm_uniform" and sampler in _WHOLE_TIMESTEPS:
        scheduler = "simple"
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
