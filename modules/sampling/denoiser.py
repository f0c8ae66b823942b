"""Converts a network's raw output (noise or velocity, at its own scale) to the predicted clean latent."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

from torch import Tensor

from modules.sampling.schedules import NoiseSchedule

Prediction = Literal["epsilon", "v"]


class Runner(Protocol):
    """Runs the network, eagerly or compiled. `prepare` decides how many rows it makes from one latent."""

    def prepare(self, conditioning: Any, timesteps: list[float]) -> None:
        """Computes everything independent of the latent once per batch; calls may still use other timesteps."""
        ...

    def step(self, x: Tensor, timestep: float) -> Tensor:
        """Returns raw output for x [N, ...] at the network's scale: [2N, ...] (conditional rows first) or [N, ...]."""
        ...


class Denoiser:
    """Predicts the clean latents of all rows that a runner returns, for x = clean + sigma * noise."""

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
        if self._prediction == "v":
            return x / norm**2 - output * (sigma / norm)
        return x - output * sigma
