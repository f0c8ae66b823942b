"""Trained noise levels and the scaling of each prediction type, against diffusers and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import rescale_zero_terminal_snr

from modules.sampling.denoiser import Denoiser
from modules.sampling.samplers.table import SAMPLERS
from modules.sampling.schedules import make_sigmas, start_latent
from modules.sampling.trained_noise import Prediction, noise_schedule
from tests.sampling.toys import Scripted, relative_error, trained_levels

SCHEDULE = noise_schedule()
# Playground 2.5 and CosXL, as their folders for diffusers configure them.
EDM: dict[Prediction, dict[str, Any]] = {
    "edm": {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras"},
    "edm_v": {
        "sigma_min": 0.002,
        "sigma_max": 120.0,
        "sigma_data": 1.0,
        "sigma_schedule": "exponential",
        "prediction_type": "v_prediction",
    },
}


def test_the_table_is_stable_diffusions() -> None:
    assert SCHEDULE.sigmas == pytest.approx(trained_levels().tolist(), rel=1e-9)
    assert SCHEDULE.sigma_min == pytest.approx(0.029167, abs=1e-6)
    assert SCHEDULE.sigma_max == pytest.approx(14.614641, abs=1e-5)


def test_zero_terminal_snr_agrees_with_diffusers() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    expected = ((1 - alphas) / alphas).sqrt().tolist()
    ours = noise_schedule(zero_terminal_snr=True)
    # diffusers' last sigma is infinite; ours is ComfyUI's finite substitute.
    assert ours.sigmas[:-1] == pytest.approx(expected[:-1], rel=1e-8)
    assert ours.sigma_max == pytest.approx(4518.76, rel=1e-4)
    assert ours.sigmas[-2] < ours.sigma_max


def test_timesteps_are_the_nearest_in_log_noise() -> None:
    logs = np.log(trained_levels())
    for sigma in np.geomspace(0.01, 30, 301):
        assert SCHEDULE.sigma_to_t(float(sigma)) == np.abs(np.log(sigma) - logs).argmin()
    for timestep in (0, 1, 500, 998, 999):
        assert SCHEDULE.sigma_to_t(SCHEDULE.sigmas[timestep]) == timestep
        assert SCHEDULE.level_at(timestep) == pytest.approx(SCHEDULE.sigmas[timestep], rel=1e-12)
    assert SCHEDULE.level_at(10.25) == pytest.approx(SCHEDULE.sigmas[10] ** 0.75 * SCHEDULE.sigmas[11] ** 0.25)


@pytest.mark.parametrize("prediction", EDM)
def test_the_scaling_of_edm_is_that_of_diffusers(prediction: Prediction) -> None:
    oracle, schedule = EDMEulerScheduler(**EDM[prediction]), noise_schedule(prediction)
    x, output = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sigma in (0.002, 0.5, 7.0, 80.0):
        scaling = schedule.scaling(sigma)
        level = torch.tensor(sigma, dtype=torch.float64)
        torch.testing.assert_close(x / scaling.norm, oracle.precondition_inputs(x, level))
        expected = oracle.precondition_outputs(x, output, level)
        torch.testing.assert_close(x * scaling.kept + output * scaling.gain, expected)
        assert schedule.sigma_to_t(sigma) == pytest.approx(oracle.precondition_noise(level).item())


@pytest.mark.parametrize(("prediction", "scheduler"), [("edm", "karras"), ("edm_v", "exponential")])
def test_the_levels_of_edm_are_those_of_diffusers(prediction: Prediction, scheduler: str) -> None:
    oracle, schedule = EDMEulerScheduler(**EDM[prediction]), noise_schedule(prediction)
    for steps in (5, 20):
        oracle.set_timesteps(steps)
        ours = make_sigmas(schedule, scheduler, steps, sampler="euler")
        assert ours == pytest.approx(oracle.sigmas.tolist(), rel=1e-5)
        assert [schedule.sigma_to_t(sigma) for sigma in ours[:-1]] == pytest.approx(oracle.timesteps.tolist(), abs=1e-5)
    assert oracle.init_noise_sigma == pytest.approx(float(start_latent(torch.ones(1), ours, schedule)))


class Network:
    """A runner whose output depends on its input and its time."""

    def prepare(self, conditioning: object, timesteps: list[float]) -> None: ...

    def step(self, x: torch.Tensor, timestep: float) -> torch.Tensor:
        return torch.sin(x * 1.5 + timestep / 3) * 0.9


@pytest.mark.parametrize("prediction", EDM)
@pytest.mark.parametrize(
    ("sampler", "oracle"), [("euler", EDMEulerScheduler), ("dpmpp_2m", EDMDPMSolverMultistepScheduler)]
)
def test_a_whole_picture_of_edm_is_that_of_diffusers(prediction: Prediction, sampler: str, oracle: Any) -> None:
    options = EDM[prediction]
    theirs, schedule, network = oracle(**options), noise_schedule(prediction), Network()
    theirs.set_timesteps(12)
    noise = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = noise * theirs.init_noise_sigma
    for timestep in theirs.timesteps:
        output = network.step(theirs.scale_model_input(x, timestep), float(timestep))
        x = theirs.step(output, timestep, x).prev_sample.double()
    sigmas = make_sigmas(schedule, options["sigma_schedule"], 12, sampler=sampler)
    start = start_latent(noise, sigmas, schedule)
    ours = SAMPLERS[sampler](Denoiser(network, schedule), start, sigmas, noise=Scripted((1, 4, 3, 3)))
    assert relative_error(ours, x) < 1e-4


def test_velocity_with_zero_terminal_snr_is_that_of_diffusers() -> None:
    oracle = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    oracle.set_timesteps(10)
    schedule, network = noise_schedule("v", zero_terminal_snr=True), Network()
    noise = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = noise * oracle.init_noise_sigma
    for timestep in oracle.timesteps:
        output = network.step(oracle.scale_model_input(x, timestep), float(timestep))
        x = oracle.step(output, timestep, x).prev_sample.double()
    sigmas = make_sigmas(schedule, "simple", 10, sampler="euler")
    start = start_latent(noise, sigmas, schedule)
    ours = SAMPLERS["euler"](Denoiser(network, schedule), start, sigmas, noise=Scripted((1, 4, 3, 3)))
    assert relative_error(ours, x) < 1e-3  # diffusers' first level is 4096, ours 4519
