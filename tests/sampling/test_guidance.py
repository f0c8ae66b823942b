"""Guidance: the usual formula, the half saved at cfg = 1, and the outputs needed by CFG++."""

from __future__ import annotations

import pytest
import torch
from diffusers import EDMEulerScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from modules.sampling.denoiser import Denoiser
from modules.sampling.guidance import GuidedDenoiser, Rescale, needs_unconditional
from modules.sampling.names import SAMPLERS
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import SAMPLERS as FUNCTIONS
from modules.sampling.schedules import make_sigmas, start_latent
from modules.sampling.trained_noise import Prediction, noise_schedule

SCHEDULE = noise_schedule()


class TwoPrompts:
    """A runner with a different output for each half; it counts the computed rows."""

    def __init__(self) -> None:
        self.halves = 0
        self.rows = 0

    def prepare(self, conditioning: tuple[str, str | None], timesteps: list[float]) -> None:
        self.halves = 1 if conditioning[1] is None else 2

    def step(self, x: Tensor, timestep: float) -> Tensor:
        self.rows += x.shape[0] * self.halves
        outputs = [torch.tanh(x * 0.7) + 0.1, torch.tanh(x * 0.4) - 0.2][: self.halves]
        return torch.cat(outputs)


def _guided(cfg: float, negative: str | None) -> tuple[TwoPrompts, GuidedDenoiser]:
    runner = TwoPrompts()
    runner.prepare(("a cat", negative), [])
    return runner, GuidedDenoiser(Denoiser(runner, SCHEDULE), cfg)


def test_guidance_extrapolates_from_the_unconditional_prediction() -> None:
    x, sigma = torch.randn(2, 4, 3, 3), 3.0
    scaled = x / (1 + sigma**2) ** 0.5
    conditional = x - sigma * (torch.tanh(scaled * 0.7) + 0.1)
    unconditional = x - sigma * (torch.tanh(scaled * 0.4) - 0.2)
    expected = unconditional + 7.5 * (conditional - unconditional)
    _, guided = _guided(7.5, "ugly")
    torch.testing.assert_close(guided(x, sigma), expected, rtol=1e-5, atol=1e-5)
    pair = guided.with_unconditional(x, sigma)
    torch.testing.assert_close(pair[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair[1], unconditional)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_cfg_one_computes_one_row_per_image(sampler: str) -> None:
    images, noise = 2, ImageNoise([1, 2], (4, 3, 3))
    sigmas = make_sigmas(SCHEDULE, "karras", 5, sampler=sampler)
    negative = "ugly" if needs_unconditional(1.0, sampler) else None
    runner, guided = _guided(1.0, negative)
    calls = []
    inner = runner.step
    runner.step = lambda x, timestep: (calls.append(timestep), inner(x, timestep))[1]  # type: ignore[method-assign]
    FUNCTIONS[sampler](guided, start_latent(noise.start(), sigmas, SCHEDULE), sigmas, noise=noise)
    halves = 2 if sampler.endswith("cfg_pp") else 1
    assert runner.rows == len(calls) * images * halves


def test_cfg_one_is_the_conditional_prediction_with_or_without_the_other_half() -> None:
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(_guided(1.0, None)[1](x, 2.0), _guided(1.0, "ugly")[1](x, 2.0))


def test_the_unconditional_half_is_asked_for_where_it_is_needed() -> None:
    assert needs_unconditional(7.0, "euler")
    assert not needs_unconditional(1.0, "euler")
    assert needs_unconditional(1.0, "euler_cfg_pp")
    with pytest.raises(ValueError, match="unconditional"):
        _guided(7.0, None)[1](torch.zeros(1, 4, 3, 3), 1.0)
    with pytest.raises(ValueError, match="unconditional"):
        _guided(1.0, None)[1].with_unconditional(torch.zeros(1, 4, 3, 3), 1.0)


class ThreeRows:
    """Constant clean predictions for two parts of a prompt and for the negative prompt, for two pictures."""

    rows = (3.0, -1.0, 0.5)

    def __init__(self, count: int = 3) -> None:
        self._count = count

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return torch.cat([x * row for row in self.rows[: self._count]])


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.5), (2.0, -0.7)])
def test_parts_of_a_prompt_pull_away_from_the_negative_one_each(cfg: float, weights: tuple[float, float]) -> None:
    x = torch.tensor([[2.0], [5.0]])
    first, second, negative = ThreeRows.rows
    expected = x * (negative + cfg * (weights[0] * (first - negative) + weights[1] * (second - negative)))
    guided = GuidedDenoiser(ThreeRows(), cfg, weights)
    torch.testing.assert_close(guided(x, 1.0), expected)
    pair = guided.with_unconditional(x, 1.0)
    torch.testing.assert_close(pair[0], expected)
    assert torch.equal(pair[1], x * negative)
    assert needs_unconditional(cfg, "euler", weights) == ((cfg, sum(weights)) != (1.0, 1.0))


def test_parts_whose_weights_sum_to_one_need_no_negative_prompt_at_cfg_one() -> None:
    x = torch.tensor([[2.0], [5.0]])
    weights = (0.25, 0.75)
    assert torch.equal(
        GuidedDenoiser(ThreeRows(2), 1.0, weights)(x, 1.0), GuidedDenoiser(ThreeRows(), 1.0, weights)(x, 1.0)
    )
    with pytest.raises(ValueError, match="unconditional"):
        GuidedDenoiser(ThreeRows(2), 1.0, (1.0, 1.0))(x, 1.0)


@pytest.mark.parametrize("amount", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "edm", "edm_v"])
@pytest.mark.parametrize("sigma", [0.05, 12.0])
def test_rescaled_guidance_is_that_of_diffusers(prediction: Prediction, sigma: float, amount: float) -> None:
    runner, schedule = TwoPrompts(), noise_schedule(prediction)
    runner.prepare(("a cat", "ugly"), [])
    noise = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, 6, 5, generator=noise) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1)
    data = 0.25 if prediction == "edm" else 1.0
    conditional, unconditional = runner.step(x / (data + sigma**2) ** 0.5, 0.0).chunk(2)
    output = rescale_noise_cfg(unconditional + 7.5 * (conditional - unconditional), conditional, amount)
    expected = {
        "epsilon": x - output * sigma,
        "v": x / (1 + sigma**2) - output * sigma / (1 + sigma**2) ** 0.5,
        "edm": EDMEulerScheduler(sigma_data=0.5).precondition_outputs(x, output, sigma),
        "edm_v": EDMEulerScheduler(sigma_data=1.0, prediction_type="v_prediction").precondition_outputs(
            x, output, sigma
        ),
    }[prediction]
    rescale = Rescale(amount=amount, schedule=schedule)
    guided = GuidedDenoiser(Denoiser(runner, schedule), 7.5, rescale=rescale)
    torch.testing.assert_close(guided(x, sigma), expected, rtol=1e-4, atol=1e-4)
    pair = guided.with_unconditional(x, sigma)
    torch.testing.assert_close(pair[0], expected, rtol=1e-4, atol=1e-4)
    plain = GuidedDenoiser(Denoiser(runner, schedule), 7.5)
    assert torch.equal(pair[1], plain.with_unconditional(x, sigma)[1])


def test_joined_prompts_are_rescaled_to_what_they_are_at_cfg_one() -> None:
    x, weights, rescale = torch.randn(2, 4, 3, 3), (1.0, 0.5), Rescale(amount=1.0, schedule=SCHEDULE)
    without = GuidedDenoiser(ThreeRows(), 1.0, weights)(x, 1.0)
    assert torch.equal(GuidedDenoiser(ThreeRows(), 1.0, weights, rescale)(x, 1.0), without)
    noise = x - GuidedDenoiser(ThreeRows(), 7.5, weights, rescale)(x, 1.0)
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), (x - without).std(dim=(1, 2, 3)))
