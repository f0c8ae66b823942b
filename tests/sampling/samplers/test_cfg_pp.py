"""CFG++: each update against the paper's formulas, in the paper's own (variance-preserving) scale."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from modules.sampling.samplers.table import SAMPLERS
from tests.sampling.toys import Curved, Gaussian, Scripted, geometric, relative_error

SHAPE = (1, 4, 6, 5)
SIGMAS = geometric(10.0, 0.1, 6)
PAIRS = [("euler_cfg_pp", "euler"), ("euler_ancestral_cfg_pp", "euler_ancestral")] + [
    ("dpmpp_2m_cfg_pp", "dpmpp_2m"),
    ("dpmpp_sde_cfg_pp", "dpmpp_sde"),
]


class Guided(Curved):
    """Two different predictions, guided with the paper's lambda."""

    def __init__(self, share: float) -> None:
        self.share = share

    def halves(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return super().with_unconditional(x, sigma)

    def with_unconditional(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        conditional, unconditional = self.halves(x, sigma)
        return unconditional + self.share * (conditional - unconditional), unconditional


def _start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * SIGMAS[0]


@pytest.mark.parametrize(("sampler", "plain"), PAIRS)
def test_without_a_difference_to_guide_by_it_is_the_plain_sampler(sampler: str, plain: str) -> None:
    ours = SAMPLERS[sampler](Gaussian(), _start(), SIGMAS, noise=Scripted(SHAPE))
    theirs = SAMPLERS[plain](Gaussian(), _start(), SIGMAS, noise=Scripted(SHAPE))
    assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0, 1.8])
def test_euler_is_the_papers_ddim(share: float) -> None:
    """Algorithm 2: guided noise gives the clean latent, and unconditional noise gives the direction of the step."""
    toy, x = Guided(share), _start()
    ours = SAMPLERS["euler_cfg_pp"](toy, x, SIGMAS, noise=Scripted(SHAPE))
    x = x / math.sqrt(1 + SIGMAS[0] ** 2)
    for sigma, sigma_next in pairwise(SIGMAS):
        a, a_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        conditional, unconditional = toy.halves(x / math.sqrt(a), sigma)
        eps_c = (x - math.sqrt(a) * conditional) / math.sqrt(1 - a)
        eps_u = (x - math.sqrt(a) * unconditional) / math.sqrt(1 - a)
        guided = eps_u + share * (eps_c - eps_u)
        clean = (x - math.sqrt(1 - a) * guided) / math.sqrt(a)
        x = math.sqrt(a_next) * clean + math.sqrt(1 - a_next) * eps_u
    assert relative_error(ours, x) < 1e-12


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_euler_ancestral_renoises_with_the_unconditional_noise(share: float) -> None:
    toy, x, noise = Guided(share), _start(), Scripted(SHAPE)
    ours = SAMPLERS["euler_ancestral_cfg_pp"](toy, x, SIGMAS, noise=Scripted(SHAPE))
    for sigma, sigma_next in pairwise(SIGMAS[:-1]):
        guided, unconditional = toy.with_unconditional(x, sigma)
        eps_u = (x - unconditional) / sigma
        down = sigma_next**2 / sigma
        x = guided + down * eps_u + math.sqrt(sigma_next**2 - down**2) * noise.step()
    assert relative_error(ours, toy.with_unconditional(x, SIGMAS[-2])[0]) < 1e-12


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_dpmpp_2m_takes_the_trend_of_the_unconditional_predictions(share: float) -> None:
    toy, x = Guided(share), _start()
    ours = SAMPLERS["dpmpp_2m_cfg_pp"](toy, x, SIGMAS, noise=Scripted(SHAPE))
    previous, h_previous = None, 0.0
    for sigma, sigma_next in pairwise(SIGMAS[:-1]):
        guided, unconditional = toy.with_unconditional(x, sigma)
        h = math.log(sigma / sigma_next)
        x = guided - math.exp(-h) * unconditional + math.exp(-h) * x
        if previous is not None:
            x = x - math.expm1(-h) * (unconditional - previous) * h / (2 * h_previous)
        previous, h_previous = unconditional, h
    assert relative_error(ours, toy.with_unconditional(x, SIGMAS[-2])[0]) < 1e-12


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_dpmpp_sde_renoises_both_halves_of_a_step(share: float) -> None:
    toy, x, noise = Guided(share), _start(), Scripted(SHAPE)
    ours = SAMPLERS["dpmpp_sde_cfg_pp"](toy, x, SIGMAS, noise=Scripted(SHAPE))
    for sigma, sigma_next in pairwise(SIGMAS[:-1]):
        state, level = x, sigma
        for target in (math.sqrt(sigma * sigma_next), sigma_next):
            guided, unconditional = toy.with_unconditional(state, level)
            down = target**2 / sigma
            # Both halves start from x; the second half uses the predictions made at the midpoint.
            state = guided + (x - unconditional) * (down / sigma) + math.sqrt(target**2 - down**2) * noise.step()
            level = target
        x = state
    assert relative_error(ours, toy.with_unconditional(x, SIGMAS[-2])[0]) < 1e-12
