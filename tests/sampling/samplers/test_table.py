"""Properties of every sampler: exact ends, batches equal to single images, progress, no hidden randomness."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from modules.core.errors import Cancelled
from modules.core.progress import CancelToken, StepEvent
from modules.sampling.names import SAMPLERS as IDS
from modules.sampling.noise import ImageNoise
from modules.sampling.samplers.table import SAMPLERS, planned_levels
from modules.sampling.schedules import make_sigmas, start_latent
from modules.sampling.trained_noise import noise_schedule
from tests.sampling.toys import Curved, Gaussian, Recorded, Scripted, geometric, relative_error

SHAPE = (4, 6, 5)
SCHEDULE = noise_schedule()


def _sample(sampler: str, seeds: list[int], *, denoise: float = 1.0, latent: Tensor | None = None) -> Tensor:
    sigmas = make_sigmas(SCHEDULE, "karras", 8, sampler=sampler, denoise=denoise)
    noise = ImageNoise(seeds, SHAPE)
    return SAMPLERS[sampler](Curved(), start_latent(noise.start(), sigmas, SCHEDULE, latent), sigmas, noise=noise)


@pytest.mark.parametrize("sampler", IDS)
def test_two_batches_of_two_are_the_four_single_images(sampler: str) -> None:
    batches = torch.cat([_sample(sampler, [40, 41]), _sample(sampler, [42, 43])])
    singles = torch.cat([_sample(sampler, [seed]) for seed in range(40, 44)])
    assert batches.dtype == torch.float32
    for batch, single in zip(batches, singles, strict=True):
        assert relative_error(batch, single) < 1e-5
    assert relative_error(batches[0], batches[1]) > 0.1


@pytest.mark.parametrize("sampler", IDS)
def test_a_batch_from_pictures_is_its_single_images(sampler: str) -> None:
    latents = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    batch = _sample(sampler, [5, 6], denoise=0.5, latent=latents)
    for row in range(2):
        single = _sample(sampler, [5 + row], denoise=0.5, latent=latents[row : row + 1])
        assert relative_error(batch[row : row + 1], single) < 1e-5


@pytest.mark.parametrize("sampler", IDS)
def test_the_result_is_exactly_the_last_clean_prediction(sampler: str) -> None:
    sigmas = make_sigmas(SCHEDULE, "karras", 7, sampler=sampler)
    recorded = Recorded(Curved())
    result = SAMPLERS[sampler](recorded, torch.randn(1, *SHAPE) * sigmas[0], sigmas, noise=ImageNoise([1], SHAPE))
    assert torch.equal(result, Curved()(recorded.states[-1], recorded.levels[-1]))
    assert recorded.levels[-1] == pytest.approx(sigmas[-2])
    assert min(recorded.levels) > 0


@pytest.mark.parametrize("sampler", IDS)
def test_one_step_and_none(sampler: str) -> None:
    x, noise = torch.randn(1, *SHAPE) * 3, ImageNoise([1], SHAPE)
    assert torch.equal(SAMPLERS[sampler](Curved(), x, [0.0], noise=noise), x)
    assert torch.equal(SAMPLERS[sampler](Curved(), x, [3.0, 0.0], noise=noise), Curved()(x, 3.0))


@pytest.mark.parametrize("sampler", IDS)
def test_progress_is_reported_after_every_step(sampler: str) -> None:
    events: list[StepEvent] = []
    sigmas = make_sigmas(SCHEDULE, "normal", 9, sampler=sampler)
    noise = ImageNoise([1, 2], SHAPE)
    x = start_latent(noise.start(), sigmas, SCHEDULE)
    result = SAMPLERS[sampler](Curved(), x, sigmas, noise=noise, on_step=events.append)
    steps = [event.step for event in events]
    assert steps == sorted(steps)
    assert steps[-1] == len(sigmas) - 1
    assert {event.steps for event in events} == {len(sigmas) - 1}
    assert all(event.denoised.shape == x.shape for event in events)
    assert torch.equal(events[-1].denoised, result)
    if sampler not in ("dpm_fast", "dpm_adaptive"):
        assert steps == list(range(1, len(sigmas)))
        assert [event.sigma for event in events] == sigmas[:-1]


@pytest.mark.parametrize("sampler", IDS)
def test_a_cancelled_step_is_the_last(sampler: str) -> None:
    token, calls = CancelToken(), []

    def on_step(event: StepEvent) -> None:
        calls.append(event)
        token.cancel()
        token.check()

    sigmas = make_sigmas(SCHEDULE, "normal", 9, sampler=sampler)
    with pytest.raises(Cancelled):
        SAMPLERS[sampler](Curved(), torch.randn(1, *SHAPE), sigmas, noise=ImageNoise([1], SHAPE), on_step=on_step)
    assert len(calls) == 1


@pytest.mark.parametrize("sampler", IDS)
def test_the_planned_levels_are_the_visited_ones(sampler: str) -> None:
    sigmas = make_sigmas(SCHEDULE, "karras", 8, sampler=sampler)
    recorded = Recorded(Curved())
    SAMPLERS[sampler](recorded, torch.randn(1, *SHAPE) * sigmas[0], sigmas, noise=ImageNoise([1], SHAPE))
    if sampler == "dpm_adaptive":
        assert planned_levels(sampler, sigmas)[0] == recorded.levels[0]
    else:
        assert planned_levels(sampler, sigmas) == recorded.levels


@pytest.mark.parametrize("sampler", IDS)
def test_a_seed_is_enough(sampler: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = _sample(sampler, [3])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(_sample(sampler, [3]), first)


@pytest.mark.parametrize("sampler", IDS)
def test_zero_terminal_snr_levels_are_sampled_to_the_datas_spread(sampler: str) -> None:
    schedule, shape = noise_schedule(zero_terminal_snr=True), (4, 30, 30)
    sigmas = make_sigmas(schedule, "sgm_uniform", 30, sampler=sampler)
    noise = ImageNoise([2], shape)
    start = start_latent(noise.start(), sigmas, schedule)
    result = SAMPLERS[sampler](Gaussian(spread=1.0), start, sigmas, noise=noise)
    # Starts at 4,500 times the data's size. dpm_adaptive tolerates 5 % at every step; LCM takes a mean at the end.
    low, high = {"dpm_adaptive": (1.0, 2.0), "lcm": (0.4, 1.0)}.get(sampler, (0.7, 1.4))
    assert low < float(result.std()) < high


def test_dpm_adaptive_lets_no_image_change_another() -> None:
    calm, wild = torch.full((1, *SHAPE), 0.1), torch.randn(1, *SHAPE) * 30
    sigmas = make_sigmas(SCHEDULE, "karras", 8, sampler="dpm_adaptive")
    lengths = []
    for x in (calm, wild):
        recorded = Recorded(Curved())
        SAMPLERS["dpm_adaptive"](recorded, x, sigmas, noise=ImageNoise([1], SHAPE))
        lengths.append(len(recorded.levels))
    assert lengths[0] != lengths[1]  # otherwise this test proves nothing
    together = SAMPLERS["dpm_adaptive"](Curved(), torch.cat([calm, wild]), sigmas, noise=ImageNoise([1, 2], SHAPE))
    alone = SAMPLERS["dpm_adaptive"](Curved(), wild, sigmas, noise=ImageNoise([2], SHAPE))
    assert relative_error(together[1:], alone) < 1e-5


def test_dpm_adaptive_ends_on_broken_numbers() -> None:
    x = torch.full((1, *SHAPE), math.nan)
    assert SAMPLERS["dpm_adaptive"](Curved(), x, [14.0, 0.03, 0.0], noise=ImageNoise([1], SHAPE)).isnan().all()


def test_heunpp2_agrees_with_its_formula_written_out() -> None:
    sigmas, toy = geometric(10.0, 0.1, 5), Curved()
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 10
    ours = SAMPLERS["heunpp2"](toy, x, sigmas, noise=Scripted((1, *SHAPE)))
    for index, (s0, s1) in enumerate(pairwise(sigmas)):
        d1 = toy.slope(x, s0)
        if s1 == 0:
            x = x - s0 * d1
            continue
        d2 = toy.slope(x + (s1 - s0) * d1, s1)
        s2 = sigmas[index + 2]
        if s2 == 0:
            w2 = s1 / (2 * sigmas[0])
            x = x + (s1 - s0) * ((1 - w2) * d1 + w2 * d2)
        else:
            d3 = toy.slope(x + (s1 - s0) * d1 + (s2 - s1) * d2, s2)
            w2, w3 = s1 / (3 * sigmas[0]), s2 / (3 * sigmas[0])
            x = x + (s1 - s0) * ((1 - w2 - w3) * d1 + w2 * d2 + w3 * d3)
    assert relative_error(ours, x) < 1e-12


def test_dpm_2_ancestral_and_2s_ancestral_agree_with_their_formulas_written_out() -> None:
    sigmas, toy, shape = geometric(10.0, 0.1, 5), Curved(), (1, *SHAPE)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 10
    by_slope, by_log = start, start
    noise = Scripted(shape)
    for s0, s1 in pairwise(sigmas[:-1]):
        up = math.sqrt(s1**2 * (s0**2 - s1**2) / s0**2)
        down = math.sqrt(s1**2 - up**2)
        middle = math.exp((math.log(s0) + math.log(down)) / 2)
        fresh = noise.step()
        inner = by_slope + toy.slope(by_slope, s0) * (middle - s0)
        by_slope = by_slope + toy.slope(inner, middle) * (down - s0) + up * fresh
        h = math.log(s0 / down)
        inner = math.exp(-h / 2) * by_log - math.expm1(-h / 2) * toy(by_log, s0)
        by_log = math.exp(-h) * by_log - math.expm1(-h) * toy(inner, middle) + up * fresh
    for sampler, expected in (("dpm_2_ancestral", by_slope), ("dpmpp_2s_ancestral", by_log)):
        ours = SAMPLERS[sampler](toy, start, sigmas, noise=Scripted(shape))
        assert relative_error(ours, toy(expected, sigmas[-2])) < 1e-12


def test_dpmpp_3m_sde_integrates_a_parabola_through_the_last_predictions() -> None:
    """Compares with numerical integrals over the SDE's kernel; the quadratic term is halved, as in k-diffusion."""
    sigmas, toy, shape = geometric(10.0, 0.1, 6), Curved(), (1, *SHAPE)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 10
    ours = SAMPLERS["dpmpp_3m_sde"](toy, x, sigmas, noise=Scripted(shape))
    noise, known = Scripted(shape), []
    for s0, s1 in pairwise(sigmas[:-1]):
        known = [(s0, toy(x, s0)), *known[:2]]
        times = [math.log(s0 / sigma) for sigma, _ in known]
        values = torch.stack([value.flatten() for _, value in known]).numpy()
        coefficients = np.polyfit(times, values, len(known) - 1)[::-1]
        h = math.log(s0 / s1)
        moments = [quad(lambda t, n=n, h=h: 2 * math.exp(2 * (t - h)) * t**n, 0, h)[0] for n in range(3)]
        weights = [moments[0], moments[1], moments[2] / 2]
        gained = sum(weight * line for weight, line in zip(weights, coefficients, strict=False))
        x = math.exp(-2 * h) * x + torch.from_numpy(gained).view(shape)
        x = x + noise.step() * s1 * math.sqrt(1 - math.exp(-2 * h))
    assert relative_error(ours, toy(x, sigmas[-2])) < 1e-9


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", IDS)
def test_a_gpu_gives_the_same_picture_and_is_never_waited_for(sampler: str) -> None:
    sigmas = make_sigmas(SCHEDULE, "karras", 8, sampler=sampler)
    noise = ImageNoise([3], SHAPE)
    start = start_latent(noise.start(), sigmas, SCHEDULE)
    x = start.cuda()
    SAMPLERS[sampler](Curved(), x, sigmas, noise=ImageNoise([3], SHAPE))  # first use of kernels and pinned memory
    torch.cuda.set_sync_debug_mode("default" if sampler == "dpm_adaptive" else "error")
    try:
        result = SAMPLERS[sampler](Curved(), x, sigmas, noise=ImageNoise([3], SHAPE))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = SAMPLERS[sampler](Curved(), start, sigmas, noise=noise)
    assert relative_error(result.cpu(), expected) < 1e-4
