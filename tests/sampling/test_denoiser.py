"""Noise and velocity predictions turn into the clean latent, checked against diffusers' conversion."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from torch import Tensor

from modules.sampling.denoiser import Denoiser
from modules.sampling.trained_noise import Prediction, noise_schedule

SCHEDULE = noise_schedule()
VELOCITY = noise_schedule("v")


class Spy:
    """A runner that returns a fixed output and records its inputs."""

    def __init__(self, output: Tensor) -> None:
        self.output = output
        self.calls: list[tuple[Tensor, float]] = []

    def prepare(self, conditioning: object, timesteps: list[float]) -> None: ...

    def step(self, x: Tensor, timestep: float) -> Tensor:
        self.calls.append((x, timestep))
        return self.output


@pytest.mark.parametrize(("prediction", "theirs"), [("epsilon", "epsilon"), ("v", "v_prediction")])
@pytest.mark.parametrize("timestep", [0, 300, 999])
def test_predictions_agree_with_diffusers(prediction: Prediction, theirs: str, timestep: int) -> None:
    x, output = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)).double().chunk(2)
    oracle = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=theirs,
        clip_sample=False,
        steps_offset=0,
    )
    oracle.set_timesteps(1000)
    sigma = SCHEDULE.sigmas[timestep]
    spy = Spy(output)
    ours = Denoiser(spy, noise_schedule(prediction))(x, sigma)
    scaled = x / math.sqrt(1 + sigma**2)
    expected = oracle.step(output, timestep, scaled).pred_original_sample
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(spy.calls[0][0], scaled)
    assert spy.calls[0][1] == timestep


def test_velocity_and_noise_of_one_state_give_one_clean_latent() -> None:
    clean, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(2)).double()
    for sigma in (0.05, 1.0, 14.0):
        alpha, spread = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
        x = clean + sigma * noise
        from_noise = Denoiser(Spy(noise), SCHEDULE)(x, sigma)
        from_velocity = Denoiser(Spy(alpha * noise - spread * clean), VELOCITY)(x, sigma)
        torch.testing.assert_close(from_noise, clean)
        torch.testing.assert_close(from_velocity, clean)


def test_velocity_works_at_the_top_of_a_zero_terminal_snr_schedule() -> None:
    schedule = noise_schedule("v", zero_terminal_snr=True)
    clean, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(3))
    sigma = schedule.sigma_max
    velocity = noise / math.sqrt(1 + sigma**2) - clean * (sigma / math.sqrt(1 + sigma**2))
    result = Denoiser(Spy(velocity), schedule)(clean + sigma * noise, sigma)
    torch.testing.assert_close(result, clean, rtol=1e-3, atol=1e-3)


def test_both_halves_of_a_runner_and_its_type_are_taken() -> None:
    output = torch.cat([torch.ones(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)]).bfloat16()
    x = torch.randn(2, 4, 3, 3)
    both = Denoiser(Spy(output), SCHEDULE)(x, 2.0)
    assert both.dtype == torch.float32
    torch.testing.assert_close(both, torch.cat([x - 2.0, x]))


def test_nothing_is_denoised_at_zero() -> None:
    with pytest.raises(ValueError, match="sigma 0"):
        Denoiser(Spy(torch.zeros(1)), SCHEDULE)(torch.zeros(1), 0.0)
