"""Switches from step to step what evaluates: the runner's context before each evaluation, or the whole network."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from torch import Tensor

from modules.sampling.samplers.sampler_common import Denoise, PairDenoise

# Some samplers recompute their levels, which match the schedule up to rounding.
_ROUNDING = 1e-6


class StepClock:
    """Assigns evaluations to the steps of a schedule, for samplers that evaluate several times per step.

    Step i starts at level i; all evaluations belong to that step until the sampler reports that the step is done.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self.sigmas = list(sigmas)
        self._rising = [-sigma for sigma in sigmas[:-1]]
        self._level: float | None = None  # level at which the current step started
        self._step = 0

    def step(self, sigma: float) -> int:
        """Returns the step, from 0. A level above the step's first begins a new run (dpm_adaptive's next picture)."""
        if self._level is None or sigma > self._level:
            self._level = sigma
            self._step = max(bisect_right(self._rising, -sigma * (1 - _ROUNDING)) - 1, 0)
        return self._step

    def step_done(self) -> None:
        """Marks the step as finished: the next evaluation starts a new step."""
        self._level = None


class SwitchingDenoiser:
    """Switches the runner to `choices[step]` before each evaluation of `denoiser`."""

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


class ReusingDenoiser:
    """Tells the runner before each evaluation of `denoiser` whether it may use the features of an earlier step."""

    def __init__(
        self, denoiser: Denoise, reuse: Callable[..., None], reusing: Sequence[bool], clock: StepClock
    ) -> None:
        """`reusing`: for each step whether it may. All evaluations of a step are alike, since samplers compare them."""
        self._denoiser = denoiser
        self._reuse = reuse
        self._reusing = reusing
        self._clock = clock

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self._reuse(is_allowed=self._reusing[self._clock.step(sigma)])
        return self._denoiser(x, sigma)


class RefinedDenoiser:
    """Asks `base` in the first steps, and `refiner` from step `first` on.

    The sampler notices nothing: a multistep sampler keeps its history, as in AUTOMATIC1111.
    """

    def __init__(self, base: PairDenoise, refiner: PairDenoise, first: int, clock: StepClock) -> None:
        self._base = base
        self._refiner = refiner
        self._first = first
        self._clock = clock

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._at(sigma)(x, sigma)

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self._at(sigma).with_unconditional(x, sigma)

    def _at(self, sigma: float) -> PairDenoise:
        return self._base if self._clock.step(sigma) < self._first else self._refiner
