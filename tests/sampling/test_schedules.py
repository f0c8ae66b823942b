"""Noise tables and schedulers against diffusers, scipy and independently written formulas."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import rescale_zero_terminal_snr
from scipy import stats
from torch import Tensor

from modules.core.errors import OptionsError
from modules.sampling.names import SCHEDULERS
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import SAMPLERS
from modules.sampling.schedules import NoiseSchedule, make_sigmas, start_latent

SCHEDULE = NoiseSchedule()
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _numpy_table() -> np.ndarray:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return np.sqrt((1 - alphas) / alphas)


def _diffusers(steps: int, **options: object) -> list[float]:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, **options)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.tolist()


def test_the_table_is_stable_diffusions() -> None:
    assert SCHEDULE.sigmas == pytest.approx(_numpy_table().tolist(), rel=1e-9)
    assert SCHEDULE.sigma_min == pytest.approx(0.029167, abs=1e-6)
    assert SCHEDULE.sigma_max == pytest.approx(14.614641, abs=1e-5)


def test_zero_terminal_snr_agrees_with_diffusers() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    expected = ((1 - alphas) / alphas).sqrt().tolist()
    ours = NoiseSchedule(zero_terminal_snr=True)
    # diffusers' last sigma is infinite; ours is ComfyUI's finite substitute.
    assert ours.sigmas[:-1] == pytest.approx(expected[:-1], rel=1e-8)
    assert ours.sigma_max == pytest.approx(4518.76, rel=1e-4)
    assert ours.sigmas[-2] < ours.sigma_max


def test_timesteps_are_the_nearest_in_log_noise() -> None:
    logs = np.log(_numpy_table())
    for sigma in np.geomspace(0.01, 30, 301):
        assert SCHEDULE.sigma_to_t(float(sigma)) == np.abs(np.log(sigma) - logs).argmin()
    for timestep in (0, 1, 500, 998, 999):
        assert SCHEDULE.sigma_to_t(SCHEDULE.sigmas[timestep]) == timestep
        assert SCHEDULE.t_to_sigma(timestep) == pytest.approx(SCHEDULE.sigmas[timestep], rel=1e-12)
    assert SCHEDULE.t_to_sigma(10.25) == pytest.approx(SCHEDULE.sigmas[10] ** 0.75 * SCHEDULE.sigmas[11] ** 0.25)


@pytest.mark.parametrize("steps", [2, 7, 20, 50])
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [("karras", {"use_karras_sigmas": True}), ("exponential", {"use_exponential_sigmas": True})],
)
def test_karras_and_exponential_agree_with_diffusers(scheduler: str, options: dict[str, bool], steps: int) -> None:
    ours = make_sigmas(SCHEDULE, scheduler, steps, sampler="euler")
    # diffusers takes both ends from its own even timesteps, which here include both ends of the table.
    assert ours == pytest.approx(_diffusers(steps, **options), rel=2e-5)


@pytest.mark.parametrize("steps", [2, 7, 20, 50])
def test_normal_agrees_with_diffusers(steps: int) -> None:
    times = np.linspace(999, 0, steps)
    expected = [float(np.exp(np.interp(t, np.arange(1000), np.log(_numpy_table())))) for t in times] + [0.0]
    assert make_sigmas(SCHEDULE, "normal", steps, sampler="euler") == pytest.approx(expected, rel=1e-9)
    # diffusers interpolates linearly between two trained levels; we and ComfyUI interpolate in log noise.
    assert expected == pytest.approx(_diffusers(steps), rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 150])
def test_the_others_agree_with_their_formulas(steps: int) -> None:
    table, logs = _numpy_table(), np.log(_numpy_table())

    def at(times: np.ndarray) -> list[float]:
        return [float(value) for value in np.exp(np.interp(times, np.arange(1000), logs))]

    def ours(scheduler: str) -> list[float]:
        return make_sigmas(SCHEDULE, scheduler, steps, sampler="euler")

    assert ours("sgm_uniform") == pytest.approx([*at(np.linspace(999, 0, steps + 1)[:-1]), 0.0])
    assert ours("simple") == pytest.approx([*(table[-(1 + int(i * 1000 / steps))] for i in range(steps)), 0.0])
    assert ours("ddim_uniform") == pytest.approx([*table[1 :: max(1000 // steps, 1)][::-1], 0.0])
    times = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), 0.6, 0.6) * 999).astype(int)
    assert ours("beta") == pytest.approx([*table[sorted(set(times.tolist()), reverse=True)], 0.0])
    share = np.arange(steps) / max(steps - 1, 1)
    angles = share * np.arctan(table[0]) + (1 - share) * np.arctan(table[-1])
    assert ours("kl_optimal") == pytest.approx([*np.tan(angles), 0.0])


def test_the_levels_of_ddim_uniform_are_diffusers_ddim_ones() -> None:
    scheduler = diffusers.DDIMScheduler(**SD, steps_offset=1, timestep_spacing="leading")
    scheduler.set_timesteps(20)
    ours = make_sigmas(SCHEDULE, "ddim_uniform", 20, sampler="ddim")
    assert [SCHEDULE.sigma_to_t(sigma) for sigma in ours[:-1]] == scheduler.timesteps.tolist()


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_levels_fall_strictly_to_zero(scheduler: str, zero_terminal_snr: bool) -> None:
    schedule = NoiseSchedule(zero_terminal_snr=zero_terminal_snr)
    for sampler in ("euler", "uni_pc"):
        for steps in (1, 2, 3, 20, 999, 1500):
            sigmas = make_sigmas(schedule, scheduler, steps, sampler=sampler)
            assert sigmas[-1] == 0.0
            assert all(high > low for high, low in zip(sigmas, sigmas[1:], strict=False))
            assert sigmas[0] <= schedule.sigma_max * (1 + 1e-9)
            if steps <= 20 and scheduler != "ddim_uniform":
                assert len(sigmas) == steps + 1


def test_samplers_that_skip_the_last_level_get_one_more() -> None:
    plain = make_sigmas(SCHEDULE, "karras", 11, sampler="euler")
    for sampler in ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"):
        assert make_sigmas(SCHEDULE, "karras", 10, sampler=sampler) == [*plain[:-2], 0.0]


def test_denoise_keeps_the_end_of_a_longer_schedule() -> None:
    longer = make_sigmas(SCHEDULE, "karras", 22, sampler="euler")
    assert make_sigmas(SCHEDULE, "karras", 10, sampler="euler", denoise=0.45) == longer[-11:]
    assert make_sigmas(SCHEDULE, "normal", 10, sampler="euler", denoise=0.0) == [0.0]
    assert make_sigmas(SCHEDULE, "normal", 10, sampler="euler", denoise=0.99999)[0] == pytest.approx(SCHEDULE.sigma_max)


@pytest.mark.parametrize("sampler", ["euler", "dpm_2"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_tail_is_the_end_of_the_whole_schedule(scheduler: str, sampler: str) -> None:
    """From about 1000 steps on, table lookups repeat levels. 2250 steps are more than the tail builds."""
    for steps, denoise in [(1, 0.5), (1, 0.3), (20, 0.35), (20, 0.9998), (37, 0.03), (9, 0.004)]:
        whole = make_sigmas(SCHEDULE, scheduler, int(steps / denoise), sampler=sampler)
        tail = make_sigmas(SCHEDULE, scheduler, steps, sampler=sampler, denoise=denoise)
        assert tail == whole[-(steps + 1) :], (steps, denoise)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_denoise_answers_at_once(scheduler: str) -> None:
    started = time.perf_counter()
    for denoise in (1e-7, 5e-324):
        sigmas = make_sigmas(SCHEDULE, scheduler, 20, sampler="euler", denoise=denoise)
        assert len(sigmas) == 21
        assert all(high > low for high, low in pairwise(sigmas))
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_levels_as_close_as_they_come(sampler: str) -> None:
    """With steps of nearly no length, the result is finite and hardly changed."""
    for scheduler in ("karras", "normal"):
        sigmas = make_sigmas(SCHEDULE, scheduler, 20, sampler=sampler, denoise=1e-12)
        noise = ImageNoise([3], (4, 2, 2))
        latent = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
        x = start_latent(noise.start(), sigmas, SCHEDULE, latent)
        result = SAMPLERS[sampler](Still(latent), x, sigmas, noise=noise)
        torch.testing.assert_close(result, latent, rtol=1e-3, atol=1e-3)


class Still:
    """A network that always predicts the true clean latent."""

    def __init__(self, latent: Tensor) -> None:
        self._latent = latent

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self._latent

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self._latent, self._latent


@pytest.mark.parametrize(("steps", "denoise"), [(0, 1.0), (-3, 1.0), (10, 1.5), (10, -0.1)])
def test_impossible_requests_are_options_errors(steps: int, denoise: float) -> None:
    with pytest.raises(OptionsError):
        make_sigmas(SCHEDULE, "normal", steps, sampler="euler", denoise=denoise)


def test_start_latent_fills_the_whole_variance_only_from_the_top() -> None:
    noise, latent = torch.ones(1, 2), torch.full((1, 2), 5.0)
    top, lower = SCHEDULE.sigma_max, 3.0
    assert start_latent(noise, [top, 0.0], SCHEDULE)[0, 0] == pytest.approx(math.sqrt(1 + top**2))
    assert start_latent(noise, [lower, 0.0], SCHEDULE, latent)[0, 0] == pytest.approx(8.0)
    assert torch.equal(start_latent(noise, [0.0], SCHEDULE, latent), latent)
