"""Conditioning that changes from step to step: the runner is told which one before each evaluation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from torch import Tensor

from modules.sampling.samplers.sampler_common import Denoise

# Some samplers work their levels out anew, and meet those of the schedule up to rounding.
_ROUNDING = 1e-6


class StepClock:
    """Tells the step of a schedule that an evaluation belongs to, for samplers that evaluate several times a step.

    Step i starts at level i; evaluations count as its own, at whatever level, until the sampler reports it done.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._rising = [-sigma for sigma in sigmas[:-1]]
        self._level: float | None = None  # where the current step started
        self._step = 0

    def step(self, sigma: float) -> int:
        """Counted from 0. A level above the current step's start begins a new run (dpm_adaptive, for each picture)."""
        if self._level is None or sigma > self._level:
            self._level = sigma
            self._step = max(bisect_right(self._rising, -sigma * (1 - _ROUNDING)) - 1, 0)
        return self._step

    def step_done(self) -> None:
        """The sampler has finished a step: the next evaluation begins another."""
        self._level = None


class SwitchingDenoiser:
    """Has the runner attend to `choices[step]` whenever `denoiser` evaluates in that step."""

    def __init__(
        self, denoiser: Denoise, switch: Callable[[int], None], choices: Sequence[int], clock: StepClock
    ) -> None:
        self._denoiser = denoiser
        self._switch = switch
        self._choices = choices
        self._clock = clock

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self._switch(self._choices[self._clock.step(sigma)])
        return self._denoiser(x, sigma)
