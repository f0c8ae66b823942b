"""Converts a network's raw output (noise or velocity, at the network's scale) to the predicted clean latent."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from modules.core.runner import Runner
from modules.sampling.schedules import NoiseSchedule

Prediction = Literal["epsilon", "v"]


class Denoiser:
    """Predicts the clean latents of all rows returned by a runner, for x = clean + sigma * noise."""

    def __init__(self, runner: Runner, schedule: NoiseSchedule, prediction: Prediction) -> None:
        self._runner = runner
        self._schedule = schedule
        self._prediction: Prediction = prediction

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if sigma == 0.0:
            raise ValueError("There is nothing to denoise at sigma 0.")
        norm = math.sqrt(sigma**2 + 1.0)
        output = self._runner.step(x / norm, self._schedule.sigma_to_t(sigma)).to(x.dtype)
        rows = output.shape[0] // x.shape[0]
        x = x if rows == 1 else x.repeat(rows, *[1] * (x.ndim - 1))
        scale = sigma / norm if self._prediction == "v" else sigma
        return without_output(x, sigma, self._prediction) - output * scale


def without_output(x: Tensor, sigma: float, prediction: Prediction) -> Tensor:
    """Returns the clean latent for an output of zero. A nonzero output changes this latent in proportion."""
    return x / math.sqrt(sigma**2 + 1.0) ** 2 if prediction == "v" else x
