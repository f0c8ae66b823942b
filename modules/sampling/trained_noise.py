"""Describes how a network was trained: its noise levels, and what its input and output mean at each level."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import mul
from typing import Literal

Prediction = Literal["epsilon", "v", "edm", "edm_v"]

# The remaining signal at the last timestep of a zero-terminal-SNR model; exactly zero would give an infinite sigma.
_TERMINAL_ALPHA = 4.8973451890853435e-08
# The lowest and highest level of networks trained at continuous levels: Playground 2.5 and CosXL.
_CONTINUOUS_RANGES: dict[Prediction, tuple[float, float]] = {"edm": (0.002, 80.0), "edm_v": (0.002, 120.0)}
_EDM_DATA = 0.5  # the standard deviation of the data, as Karras et al. 2022 assume it
_LEVELS = 1000


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What a network reads and means at one level, for x = clean + sigma * noise.

    It reads x / norm. The clean latent is x * kept + output * gain.
    """

    norm: float
    kept: float
    gain: float


class NoiseSchedule:
    """The noise levels (noise over signal) of all training timesteps, in rising order."""

    def __init__(self, sigmas: Sequence[float], prediction: Prediction = "epsilon", family: str = "SD1.x") -> None:
        self.sigmas: tuple[float, ...] = tuple(sigmas)
        self.prediction: Prediction = prediction
        self.family = family
        self._log_sigmas = [math.log(sigma) for sigma in self.sigmas]

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1]

    @property
    def continuous(self) -> bool:
        """Tells whether the network was trained at any level of a range, so that `sigmas` only samples the range."""
        return self.prediction in _CONTINUOUS_RANGES

    def scaling(self, sigma: float) -> Scaling:
        """Returns the network's scaling at this level (Karras et al. 2022, table 1; Salimans and Ho 2022)."""
        data = _EDM_DATA if self.prediction == "edm" else 1.0
        norm = math.sqrt(sigma**2 + data**2)
        if self.prediction == "epsilon":
            return Scaling(norm=norm, kept=1.0, gain=-sigma)
        gain = sigma * data / norm
        return Scaling(norm=norm, kept=(data / norm) ** 2, gain=gain if self.prediction == "edm" else -gain)

    def sigma_to_t(self, sigma: float) -> float:
        """Returns the number that tells the network this level.

        It is the whole timestep nearest in log noise (ComfyUI's rule), or a quarter of log noise for EDM.
        """
        return math.log(sigma) / 4 if self.continuous else float(self.nearest(sigma))

    def nearest(self, sigma: float) -> int:
        """Returns the position in `sigmas` of the level nearest in log noise."""
        target = math.log(sigma)
        above = min(max(bisect_left(self._log_sigmas, target), 1), len(self.sigmas) - 1)
        below = above - 1
        nearer_below = target - self._log_sigmas[below] <= self._log_sigmas[above] - target
        return below if nearer_below else above

    def level_at(self, position: float) -> float:
        """Returns the noise level at a position in `sigmas`, with log-linear interpolation between levels."""
        return log_linear(self._log_sigmas, position)


def log_linear(logs: Sequence[float], position: float) -> float:
    """Returns the level at a position in levels with these logarithms, by linear interpolation of the logarithm."""
    position = min(max(position, 0.0), len(logs) - 1.0)
    low = math.floor(position)
    high = math.ceil(position)
    weight = position - low
    return math.exp((1.0 - weight) * logs[low] + weight * logs[high])


@lru_cache(maxsize=8)  # a thousand levels, asked for several times in each request
def noise_schedule(
    prediction: Prediction = "epsilon",
    *,
    zero_terminal_snr: bool = False,
    sigma_range: tuple[float, float] | None = None,
    family: str = "SD1.x",
) -> NoiseSchedule:
    """Returns the schedule of a checkpoint, by the fields of its ModelSpec.

    `sigma_range` is the lowest and highest level of the two EDM kinds, which leave `zero_terminal_snr` aside.
    """
    if prediction in _CONTINUOUS_RANGES:
        return NoiseSchedule(_even_in_log(*(sigma_range or _CONTINUOUS_RANGES[prediction])), prediction, family)
    alphas = _stable_diffusion_alphas()
    if zero_terminal_snr:
        alphas = _rescale_to_zero_snr(alphas)
    return NoiseSchedule([math.sqrt((1.0 - alpha) / alpha) for alpha in alphas], prediction, family)


def _stable_diffusion_alphas(start: float = 0.00085, end: float = 0.012) -> list[float]:
    """Computes the cumulative signal power of SD1.x, SD2.x and SDXL: betas are squares of evenly spaced roots."""
    low, high = math.sqrt(start), math.sqrt(end)
    betas = ((low + (high - low) * index / (_LEVELS - 1)) ** 2 for index in range(_LEVELS))
    return list(accumulate((1.0 - beta for beta in betas), mul))


def _rescale_to_zero_snr(alphas: Sequence[float]) -> list[float]:
    """Shifts and scales the signal to make the last timestep pure noise (Lin et al. 2023, algorithm 1)."""
    roots = [math.sqrt(alpha) for alpha in alphas]
    scale = roots[0] / (roots[0] - roots[-1])
    return [((root - roots[-1]) * scale) ** 2 for root in roots[:-1]] + [_TERMINAL_ALPHA]


def _even_in_log(low: float, high: float) -> list[float]:
    """Returns levels with the same ratio between neighbours, from `low` to `high` inclusive."""
    return [low * (high / low) ** (index / (_LEVELS - 1)) for index in range(_LEVELS)]
