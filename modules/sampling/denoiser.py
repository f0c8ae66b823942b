"""Converts a network's raw output (noise or velocity, at the network's scale) to the predicted clean latent."""

from __future__ import annotations

from torch import Tensor

from modules.core.runner import Runner
from modules.sampling.trained_noise import NoiseSchedule


class Denoiser:
    """Predicts the clean latents of all rows returned by a runner, for x = clean + sigma * noise."""

    def __init__(self, runner: Runner, schedule: NoiseSchedule) -> None:
        self._runner = runner
        self._schedule = schedule

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if sigma == 0.0:
            raise ValueError("There is nothing to denoise at sigma 0.")
        scaling = self._schedule.scaling(sigma)
        output = self._runner.step(x / scaling.norm, self._schedule.sigma_to_t(sigma)).to(x.dtype)
        rows = output.shape[0] // x.shape[0]
        x = x if rows == 1 else x.repeat(rows, *[1] * (x.ndim - 1))
        return x * scaling.kept + output * scaling.gain
