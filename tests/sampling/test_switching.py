"""Each evaluation is assigned to the right step, for every sampler, whatever the number and levels of evaluations."""

from __future__ import annotations

import pytest
from torch import Tensor

from modules.core.progress import StepEvent
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import SAMPLERS
from modules.sampling.schedules import make_sigmas
from modules.sampling.switching import RefinedDenoiser, StepClock, SwitchingDenoiser
from modules.sampling.trained_noise import noise_schedule
from tests.sampling.toys import Curved

STEPS = 7
SHAPE = (1, 2, 2)


class Watched:
    """Runs a sampler and records the conditioning and the finished steps at each evaluation."""

    def __init__(self, sampler: str, pictures: int = 1) -> None:
        self.sigmas = make_sigmas(noise_schedule(), "karras", STEPS, sampler=sampler)
        self.seen: list[tuple[int, float, int]] = []  # steps done, level, shown
        self._done = self._shown = 0
        self._clock = StepClock(self.sigmas)
        self._network = Curved()
        self.denoise = SwitchingDenoiser(
            self._evaluate, self._switch, [10 + step for step in range(STEPS)], self._clock
        )
        noise = ImageNoise(range(pictures), SHAPE)
        SAMPLERS[sampler](self, noise.start() * self.sigmas[0], self.sigmas, noise=noise, on_step=self._on_step)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.denoise(x, sigma)

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised = self.denoise(x, sigma)
        return denoised, denoised

    def _switch(self, which: int) -> None:
        self._shown = which

    def _evaluate(self, x: Tensor, sigma: float) -> Tensor:
        self.seen.append((self._done, sigma, self._shown - 10))
        return self._network(x, sigma)

    def _on_step(self, event: StepEvent) -> None:
        self._done += 1
        self._clock.step_done()


class Named(Curved):
    """Records its name and the step at each evaluation."""

    def __init__(self, name: str, clock: StepClock, asked: list[tuple[str, int]]) -> None:
        self._name, self._clock, self._asked = name, clock, asked

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self._asked.append((self._name, self._clock.step(sigma)))
        return super().__call__(x, sigma)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("dpm_fast", "dpm_adaptive")])
def test_all_evaluations_of_a_step_are_shown_the_same(sampler: str) -> None:
    seen = Watched(sampler).seen
    assert {done for done, _, _ in seen} == set(range(STEPS))
    assert all(shown == done for done, _, shown in seen)


@pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
def test_samplers_with_levels_of_their_own_go_by_the_level(sampler: str) -> None:
    run = Watched(sampler)
    firsts = {done: (sigma, shown) for done, sigma, shown in reversed(run.seen)}
    for sigma, shown in firsts.values():
        assert run.sigmas[shown] * (1 + 1e-5) >= sigma > run.sigmas[shown + 1]
    assert run.seen[-1][2] == STEPS - 1


def test_the_adaptive_sampler_starts_over_with_each_picture() -> None:
    run = Watched("dpm_adaptive", pictures=2)
    starts = [shown for _, sigma, shown in run.seen if sigma == run.sigmas[0]]
    assert len(starts) >= 2 and set(starts) == {0}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_evaluations_of_the_last_steps_are_the_refiners(sampler: str) -> None:
    sigmas = make_sigmas(noise_schedule(), "karras", STEPS, sampler=sampler)
    clock, asked = StepClock(sigmas), list[tuple[str, int]]()
    base, refiner = (Named(name, clock, asked) for name in ("base", "refiner"))
    noise = ImageNoise([0], SHAPE)
    SAMPLERS[sampler](
        RefinedDenoiser(base, refiner, 5, clock),
        noise.start() * sigmas[0],
        sigmas,
        noise=noise,
        on_step=lambda _: clock.step_done(),
    )
    assert {name for name, _ in asked} == {"base", "refiner"}
    assert all((name == "refiner") == (step >= 5) for name, step in asked)


def test_levels_up_to_rounding_are_those_of_the_schedule() -> None:
    for factor in (1 - 1e-9, 1.0, 1 + 1e-9):
        clock = StepClock([10.0, 5.0, 2.0, 0.0])
        found: list[int] = []
        for level in (10.0, 5.0, 2.0):
            found.append(clock.step(level * factor))
            clock.step_done()
        assert found == [0, 1, 2]
