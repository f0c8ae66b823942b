"""All intermediate states of a sampler agree with diffusers' schedulers for the same levels and noise."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from modules.sampling.samplers.markov import sample_tcd
from modules.sampling.samplers.table import SAMPLERS, sampler_for
from modules.sampling.schedules import make_sigmas
from modules.sampling.trained_noise import noise_schedule
from tests.sampling.toys import Curved, Recorded, Scripted, relative_error

SHAPE = (2, 4, 5, 6)
SCHEDULE = noise_schedule()
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TOLERANCE = 1e-4  # diffusers stores its levels in fp32


def _levels(scheduler: str, steps: int) -> list[float]:
    return make_sigmas(SCHEDULE, scheduler, steps, sampler="euler")


def _start(sigmas: list[float]) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * sigmas[0]


def _ours(sampler: str, sigmas: list[float]) -> list[Tensor]:
    """Returns the states at each evaluation, then the result."""
    recorded = Recorded(Curved())
    result = SAMPLERS[sampler](recorded, _start(sigmas), sigmas, noise=Scripted(SHAPE))
    return [*recorded.states, result]


def _with_levels(scheduler: Any, sigmas: list[float], *, doubled: bool = False) -> Any:
    """Makes a diffusers scheduler use our levels instead of its own."""
    scheduler.set_timesteps(len(sigmas) - 1)
    levels = torch.tensor(sigmas, dtype=torch.float64)
    if doubled:
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler.sigmas = levels
    scheduler.set_begin_index(0)
    return scheduler


def _theirs(
    scheduler: Any, levels: list[float], start: Tensor, *, variance_preserving: bool, **extra: Any
) -> list[Tensor]:
    """Returns the states of a diffusers scheduler at each evaluation (at our scale), then its result."""
    toy, states = Curved(), []
    x = start / math.sqrt(1 + levels[0] ** 2) if variance_preserving else start
    for level, timestep in zip(levels, scheduler.timesteps, strict=True):
        state = x * math.sqrt(1 + level**2) if variance_preserving else x
        states.append(state)
        x = scheduler.step(toy.slope(state, level), timestep, x, **extra).prev_sample
    return [*states, x]


def _assert_same(ours: list[Tensor], theirs: list[Tensor], sigmas: list[float] | None = None) -> None:
    """Checks that all states agree. With `sigmas`, our last state is compared with the last clean prediction instead.

    diffusers' LMS extrapolates down to zero, where it can only add noise, and its UniPC of kind bh1 returns NaN there.
    """
    assert len(ours) == len(theirs)
    if sigmas is not None:
        assert torch.equal(ours[-1], Curved()(ours[-2], sigmas[-2]))
        ours, theirs = ours[:-1], theirs[:-1]
    for index, (own, their) in enumerate(zip(ours, theirs, strict=True)):
        assert relative_error(own, their) < TOLERANCE, f"state {index}"


@pytest.fixture
def scripted_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces diffusers' noise with the list used by our samplers."""
    noise = Scripted(SHAPE)
    for name in ("euler_ancestral_discrete", "lcm", "tcd", "dpmsolver_multistep", "ddpm"):
        module = importlib.import_module(f"diffusers.schedulers.scheduling_{name}")
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise.step())


@pytest.mark.parametrize("levels", ["karras", "simple"])
@pytest.mark.parametrize(
    ("sampler", "scheduler", "variance_preserving"),
    [
        ("euler", diffusers.EulerDiscreteScheduler(**SD), False),
        ("euler_ancestral", diffusers.EulerAncestralDiscreteScheduler(**SD), False),
        ("lms", diffusers.LMSDiscreteScheduler(**SD), False),
        ("dpmpp_2m", diffusers.DPMSolverMultistepScheduler(**SD), True),
        ("dpmpp_2m_sde", diffusers.DPMSolverMultistepScheduler(**SD, algorithm_type="sde-dpmsolver++"), True),
        ("uni_pc", diffusers.UniPCMultistepScheduler(**SD, solver_order=3, solver_type="bh1"), True),
        ("uni_pc_bh2", diffusers.UniPCMultistepScheduler(**SD, solver_order=3, solver_type="bh2"), True),
    ],
)
@pytest.mark.usefixtures("scripted_diffusers")
def test_samplers_of_one_evaluation_a_step(
    sampler: str, scheduler: Any, variance_preserving: bool, levels: str
) -> None:
    sigmas = _levels(levels, 20)
    theirs = _theirs(
        _with_levels(scheduler, sigmas), sigmas[:-1], _start(sigmas), variance_preserving=variance_preserving
    )
    _assert_same(_ours(sampler, sigmas), theirs, sigmas if sampler in ("lms", "uni_pc") else None)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["bh1", "bh2"])
def test_unipc_of_few_steps(kind: str, steps: int) -> None:
    sigmas = _levels("karras", steps)
    scheduler = diffusers.UniPCMultistepScheduler(**SD, solver_order=3, solver_type=kind)
    theirs = _theirs(_with_levels(scheduler, sigmas), sigmas[:-1], _start(sigmas), variance_preserving=True)
    _assert_same(_ours("uni_pc" if kind == "bh1" else "uni_pc_bh2", sigmas), theirs, sigmas if kind == "bh1" else None)


def test_heun() -> None:
    sigmas = _levels("karras", 10)
    scheduler = _with_levels(diffusers.HeunDiscreteScheduler(**SD), sigmas, doubled=True)
    levels = [sigmas[0]] + [sigma for sigma in sigmas[1:-1] for _ in range(2)]
    _assert_same(_ours("heun", sigmas), _theirs(scheduler, levels, _start(sigmas), variance_preserving=False))


def test_dpmpp_sde() -> None:
    sigmas = _levels("karras", 10)
    scheduler = _with_levels(diffusers.DPMSolverSDEScheduler(**SD), sigmas, doubled=True)
    noise = Scripted(SHAPE)
    scheduler.noise_sampler = lambda sigma, sigma_next: noise.step()
    levels = [level for high, low in pairwise(sigmas[:-1]) for level in (high, math.sqrt(high * low))] + [sigmas[-2]]
    _assert_same(_ours("dpmpp_sde", sigmas), _theirs(scheduler, levels, _start(sigmas), variance_preserving=False))


@pytest.mark.usefixtures("scripted_diffusers")
@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("ddim", diffusers.DDIMScheduler(**SD, clip_sample=False, steps_offset=1)),
        ("ddpm", diffusers.DDPMScheduler(**SD, clip_sample=False, steps_offset=1, timestep_spacing="leading")),
    ],
)
def test_samplers_on_trained_timesteps(sampler: str, scheduler: Any) -> None:
    sigmas = _levels("ddim_uniform", 20)
    scheduler.set_timesteps(20)
    theirs = _theirs(scheduler, sigmas[:-1], _start(sigmas), variance_preserving=True)
    _assert_same(_ours(sampler, sigmas), theirs)


@pytest.mark.usefixtures("scripted_diffusers")
def test_lcm() -> None:
    timesteps = [999, 759, 499, 259]
    sigmas = [SCHEDULE.sigmas[timestep] for timestep in timesteps] + [0.0]
    scheduler = diffusers.LCMScheduler(**SD, clip_sample=False)
    scheduler.set_timesteps(timesteps=timesteps)
    _assert_same(_ours("lcm", sigmas), _theirs(scheduler, sigmas[:-1], _start(sigmas), variance_preserving=True))


@pytest.mark.usefixtures("scripted_diffusers")
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_tcd(steps: int) -> None:
    scheduler = diffusers.TCDScheduler(**SD)
    scheduler.set_timesteps(steps)
    sigmas = [SCHEDULE.sigmas[timestep] for timestep in scheduler.timesteps] + [0.0]
    theirs = _theirs(scheduler, sigmas[:-1], _start(sigmas), variance_preserving=True, eta=0.3)
    # diffusers ends at the lowest trained level instead of zero.
    _assert_same(_ours("tcd", sigmas), theirs, sigmas)


def test_tcd_is_ddim_and_lcm_at_its_ends() -> None:
    sigmas = _levels("simple", 6)
    for gamma, other in ((0.0, "ddim"), (1.0, "lcm")):
        result = sample_tcd(Curved(), _start(sigmas), sigmas, noise=Scripted(SHAPE), gamma=gamma)
        # At gamma 1, old noise of the lowest trained level is left.
        assert relative_error(result, _ours(other, sigmas)[-1]) < (1e-12 if gamma == 0.0 else 0.05)


def test_tcd_follows_the_timesteps_of_its_network() -> None:
    schedule = noise_schedule("v", zero_terminal_snr=True)
    sigmas = make_sigmas(schedule, "sgm_uniform", 2, sampler="tcd")
    noise = Scripted(SHAPE)
    ours = Recorded(Curved())
    sampler_for("tcd", schedule)(ours, _start(sigmas), sigmas, noise=noise)
    down = schedule.sigmas[349]  # 0.7 * 499
    clean = Curved()(ours.states[0], sigmas[0])
    expected = clean + (ours.states[0] - clean) * (down / sigmas[0])
    expected = expected + Scripted(SHAPE).step() * math.sqrt(sigmas[1] ** 2 - down**2)
    assert relative_error(ours.states[1], expected) < 1e-12


def test_ddpm_and_euler_ancestral_are_one_method_in_two_forms() -> None:
    sigmas = _levels("normal", 12)
    for own, other in zip(_ours("ddpm", sigmas), _ours("euler_ancestral", sigmas), strict=True):
        assert relative_error(own, other) < 1e-12


def test_dpm_2() -> None:
    sigmas = _levels("karras", 10)
    scheduler = _with_levels(diffusers.KDPM2DiscreteScheduler(**SD), sigmas, doubled=True)
    middles = [math.sqrt(high * low) for high, low in pairwise(sigmas[:-1])]
    interpolated = torch.tensor(middles, dtype=torch.float64).repeat_interleave(2)
    scheduler.sigmas_interpol = torch.cat([interpolated, torch.zeros(2, dtype=torch.float64)])
    levels = [level for high, middle in zip(sigmas, middles, strict=False) for level in (high, middle)] + [sigmas[-2]]
    _assert_same(_ours("dpm_2", sigmas), _theirs(scheduler, levels, _start(sigmas), variance_preserving=False))
