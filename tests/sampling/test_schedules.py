"""Noise tables and schedulers against diffusers, scipy and independently written formulas."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import AysSchedules
from scipy import stats
from torch import Tensor

from modules.core.errors import OptionsError
from modules.sampling.names import SCHEDULERS
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import SAMPLERS
from modules.sampling.schedules import make_sigmas, start_latent
from modules.sampling.trained_noise import noise_schedule
from tests.sampling.toys import trained_levels

SCHEDULE = noise_schedule()
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _diffusers(steps: int, **options: object) -> list[float]:
    scheduler = diffusers.EulerDiscreteScheduler(**SD, **options)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.tolist()


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
    expected = [float(np.exp(np.interp(t, np.arange(1000), np.log(trained_levels())))) for t in times] + [0.0]
    assert make_sigmas(SCHEDULE, "normal", steps, sampler="euler") == pytest.approx(expected, rel=1e-9)
    # diffusers interpolates linearly between two trained levels; we and ComfyUI interpolate in log noise.
    assert expected == pytest.approx(_diffusers(steps), rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 150])
def test_the_others_agree_with_their_formulas(steps: int) -> None:
    table, logs = trained_levels(), np.log(trained_levels())

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


@pytest.mark.parametrize("sampler", ["lcm", "tcd"])
def test_distilled_models_visit_the_timesteps_they_were_distilled_at(sampler: str) -> None:
    """DMD2's page names 999, 749, 499 and 249 for four steps. diffusers calls this spacing trailing."""
    for steps in (1, 2, 4, 8):
        sigmas = make_sigmas(SCHEDULE, "sgm_uniform", steps, sampler=sampler)
        scheduler = diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        assert [SCHEDULE.sigma_to_t(sigma) for sigma in sigmas[:-1]] == scheduler.timesteps.tolist()
        assert sigmas[:-1] == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)


@pytest.mark.parametrize(("family", "name"), [("SD1.x", ""), ("SD2.x", ""), ("SDXL", "XL")])
def test_align_your_steps_has_the_published_steps(family: str, name: str) -> None:
    schedule = noise_schedule(family=family)
    ours = make_sigmas(schedule, "ays", 10, sampler="euler")
    timesteps, sigmas = (AysSchedules[f"StableDiffusion{name}{what}"] for what in ("Timesteps", "Sigmas"))
    assert [schedule.sigma_to_t(sigma) for sigma in ours[:-1]] == timesteps
    assert ours == pytest.approx(sigmas, abs=6e-3)  # the published levels are rounded


@pytest.mark.parametrize("steps", [1, 5, 10, 23])
def test_align_your_steps_is_interpolated_in_log_noise(steps: int) -> None:
    timesteps = [*AysSchedules["StableDiffusionXLTimesteps"], 0]
    logs = np.log(trained_levels()[timesteps])
    expected = np.exp(np.interp(np.linspace(0, 10, steps + 1), np.arange(11), logs))[:-1]
    ours = make_sigmas(noise_schedule(family="SDXL"), "ays", steps, sampler="euler")
    assert ours == pytest.approx([*expected, 0.0], rel=1e-9)


def test_align_your_steps_starts_from_pure_noise_with_zero_terminal_snr_and_is_refused_for_edm() -> None:
    schedule = noise_schedule("v", zero_terminal_snr=True)
    assert make_sigmas(schedule, "ays", 7, sampler="euler")[0] == pytest.approx(schedule.sigma_max)
    with pytest.raises(OptionsError, match="ays"):
        make_sigmas(noise_schedule("edm"), "ays", 7, sampler="euler")


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "ays"])
def test_every_other_scheduler_covers_the_range_of_edm(scheduler: str) -> None:
    schedule = noise_schedule("edm_v", sigma_range=(0.01, 90.0))
    sigmas = make_sigmas(schedule, scheduler, 12, sampler="euler")
    assert all(high > low for high, low in pairwise(sigmas))
    assert sigmas[0] == pytest.approx(90.0, rel=0.06)  # ddim_uniform starts a little below
    assert sigmas[-2] >= 0.01 * (1 - 1e-9)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_levels_fall_strictly_to_zero(scheduler: str, zero_terminal_snr: bool) -> None:
    schedule = noise_schedule(zero_terminal_snr=zero_terminal_snr)
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
