"""Each sampler converges to a known answer at the rate of its order (for Gaussian data, the flow has a closed form)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate
from torch import Tensor

from modules.sampling.samplers.multistep import lms_coefficients
from modules.sampling.samplers.table import SAMPLERS
from tests.sampling.toys import Axes, Gaussian, Recorded, Scripted, geometric, relative_error

START, END = 10.0, 0.5
DATA = Gaussian(spread=1.0)


def _flow_error(sampler: str, steps: int) -> float:
    """Returns the relative error of the state at END, the level of the last evaluation before zero."""
    x = torch.ones(1, 1, dtype=torch.float64)
    recorded = Recorded(DATA)
    SAMPLERS[sampler](recorded, x, geometric(START, END, steps), noise=Scripted((1, 1)))
    assert recorded.levels[-1] == pytest.approx(END)
    return relative_error(recorded.states[-1], DATA.flow(x, START, END))


def _order(errors: list[float]) -> float:
    """Returns the order of convergence from the last two errors, with step sizes halved in between."""
    return math.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(
    ("sampler", "order", "steps"),
    [
        ("euler", 1, 80),
        ("ddim", 1, 80),
        ("heunpp2", 1, 80),
        ("euler_cfg_pp", 1, 80),
        ("heun", 2, 40),
        ("dpm_2", 2, 40),
        ("dpmpp_2m", 2, 80),
        ("dpmpp_2m_cfg_pp", 2, 80),
        ("uni_pc", 3, 80),
        ("uni_pc_bh2", 3, 80),
        ("lms", 2, 320),  # of order 4, but its first step is Euler's
        ("dpm_fast", 3, 119),  # a budget of 3n + 2 ends with a second-order step, others with a first-order step
    ],
)
def test_flow_samplers_converge_at_their_order(sampler: str, order: int, steps: int) -> None:
    errors = [_flow_error(sampler, count) for count in (steps // 2, steps)]
    assert _order(errors) > order - 0.2, errors
    assert errors[-1] < 0.05


def test_higher_orders_pay() -> None:
    errors = {sampler: _flow_error(sampler, 20) for sampler in ("euler", "dpmpp_2m", "uni_pc", "lms", "heun")}
    assert all(errors[sampler] < errors["euler"] / 5 for sampler in errors if sampler != "euler"), errors


def test_lms_weights_are_the_integrals_of_lagranges_polynomials() -> None:
    sigmas = geometric(10.0, 0.5, 6)
    for index in range(3, 6):
        weights = lms_coefficients(sigmas, index, 4)
        for own in range(4):

            def polynomial(point: float, own: int = own, index: int = index) -> float:
                nodes = [sigmas[index - lag] for lag in range(4)]
                return math.prod((point - node) / (nodes[own] - node) for k, node in enumerate(nodes) if k != own)

            exact, _ = integrate.quad(polynomial, sigmas[index], sigmas[index + 1])
            assert weights[own] == pytest.approx(exact, rel=1e-9)


def test_dpm_adaptive_keeps_its_tolerance() -> None:
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)[None] * START
    result = SAMPLERS["dpm_adaptive"](DATA, x, [START, END, 0.0], noise=Scripted((1, 50)))
    exact = DATA(DATA.flow(x, START, END), END)
    assert relative_error(result, exact) < 0.05


def _variance(sampler: str, steps: int) -> float:
    """Returns the exact variance of the states at END, over all noises."""
    sigmas = geometric(START, END, steps)
    times = sorted({*sigmas[:-1], *(math.sqrt(high * low) for high, low in pairwise(sigmas[:-1]))})
    x = torch.zeros(1, 2 * steps + 2, dtype=torch.float64)
    x[0, 0] = math.sqrt(DATA.spread**2 + START**2)
    recorded = Recorded(DATA)
    SAMPLERS[sampler](recorded, x, sigmas, noise=Axes(x.shape[1], times))
    assert recorded.levels[-1] == pytest.approx(END)
    return float(recorded.states[-1].square().sum())


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ("euler_ancestral", 1),
        ("euler_ancestral_cfg_pp", 1),
        ("ddpm", 1),
        ("dpm_2_ancestral", 2),
        ("dpmpp_2s_ancestral", 2),
        ("dpmpp_sde", 2),
        ("dpmpp_sde_cfg_pp", 2),
        ("dpmpp_2m_sde", 2),
        ("dpmpp_3m_sde", 2),
    ],
)
def test_stochastic_samplers_converge_to_the_right_variance(sampler: str, order: int) -> None:
    exact = DATA.spread**2 + END**2
    errors = [abs(_variance(sampler, steps) / exact - 1) for steps in (80, 160)]
    assert _order(errors) > order - 0.2, errors
    assert errors[-1] < 0.05


def test_lcm_is_exact_with_a_consistency_model() -> None:
    def consistent(x: Tensor, sigma: float) -> Tensor:
        return DATA.flow(x, sigma, 0.0)

    for steps in (1, 2, 4, 8):
        x = torch.zeros(1, steps + 1, dtype=torch.float64)
        x[0, 0] = math.sqrt(DATA.spread**2 + START**2)
        sigmas = geometric(START, END, steps - 1) if steps > 1 else [START, 0.0]
        result = SAMPLERS["lcm"](consistent, x, sigmas, noise=Axes(steps + 1, sigmas))
        assert float(result.square().sum()) == pytest.approx(DATA.spread**2)
