"""Products in eight bits on a GPU: captured once the scales are known, near eager, and the same graph for each LoRA."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from modules.generation.eager_runner import EagerRunner
from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.registry import REFERENCE
from modules.stable_fast.precision import why_no_effect
from tests import tiny
from tests.stable_fast.fake_eight_bits import with_extremes
from tests.stable_fast.networks import inputs_for, latent, random, rel_error
from tests.stable_fast.test_unet_runner_gpu import CONFIG, TIMESTEPS, network_on_gpu, pictures

pytestmark = [pytest.mark.gpu, pytest.mark.own_cache]

WEIGHT = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"


def picture(runner: StableFastRunner | EagerRunner) -> list[Tensor]:
    return [step.clone() for step in pictures(runner, inputs_for(CONFIG), latent())]


def skip_without(kind: str, network: nn.Module) -> None:
    reason = why_no_effect(kind, torch.device("cuda", 0), network)
    if reason:
        pytest.skip(reason)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_a_thousand_steps_with_extreme_scales_give_no_nan(kind: str) -> None:
    network = with_extremes(network_on_gpu())
    skip_without(kind, network)
    fast = StableFastRunner(network, StableFastConfig(precision=kind, timed_against_eager=False))
    for _ in range(2):
        steps = pictures(fast, inputs_for(CONFIG), latent())
        assert all(bool(step.isfinite().all()) for step in steps)
    x, ok = latent().half().cuda(), torch.ones((), dtype=torch.bool, device="cuda")
    for number in range(1000):
        ok &= fast.step(x * (1 + number % 7), TIMESTEPS[number % len(TIMESTEPS)]).isfinite().all()
    assert bool(ok) and fast.report.counters.captures == 1


@pytest.mark.parametrize(("kind", "most"), [("fp8", 0.1), ("int8", 0.04)])
def test_steps_are_captured_and_a_lora_needs_no_new_graph(kind: str, most: float) -> None:
    network = network_on_gpu()
    skip_without(kind, network)
    fast = StableFastRunner(network, StableFastConfig(precision=kind, timed_against_eager=False))
    first, half = picture(fast), picture(EagerRunner(network))
    assert fast.report.counters.captures == 0, "the first picture looks for scales"
    never = picture(fast)
    assert fast.report.counters.captures == 1 and fast.report.in_force == ("full", "")
    for found, earlier, expected in zip(never, first, half, strict=True):
        assert rel_error(found, expected) < most and rel_error(earlier, expected) < most
    weight = dict(network.named_parameters())[WEIGHT].data
    pristine = weight.clone()
    weight += 0.3 * random(*weight.shape).to(weight)
    fast.refresh_weights({WEIGHT})
    for found, expected, before in zip(picture(fast), picture(EagerRunner(network)), never, strict=True):
        assert rel_error(found, expected) < most and not torch.equal(found, before)
    weight.copy_(pristine)
    fast.refresh_weights({WEIGHT})
    assert all(torch.equal(*pair) for pair in zip(picture(fast), never, strict=True))
    assert (fast.report.counters.captures, fast.report.counters.traces) == (1, 1)
    eight = {name for (name, _), choice in CHOICES.used.items() if choice != REFERENCE}
    assert {"conv2d_eight", "linear_eight"} <= eight, f"only {sorted(eight)} ran in kernels"


@pytest.mark.parametrize("precision", ["fp8-weights", "int8-weights"])
def test_weights_in_eight_bits_leave_the_network_in_the_computers_memory(precision: str) -> None:
    home = tiny.unet(CONFIG).half()
    on_card = copy.deepcopy(home).cuda()
    eager = EagerRunner(on_card)
    fast = StableFastRunner(home, StableFastConfig(precision=precision, timed_against_eager=False))
    never, half = picture(fast), picture(eager)
    for found, expected in zip(never, half, strict=True):
        assert rel_error(found, expected) < 0.1
    assert fast.report.counters.captures == 1 and fast.report.in_force == ("full", "")
    size = sum(weight.nbytes for weight in home.parameters()) / 2**20
    assert all(weight.device.type == "cpu" for weight in home.parameters()) and fast.report.weights_mib < 0.7 * size
    weight = dict(home.named_parameters())[WEIGHT].data
    pristine = weight.clone()
    weight += 0.3 * random(*weight.shape).to(weight)
    fast.refresh_weights({WEIGHT})
    dict(on_card.named_parameters())[WEIGHT].data.copy_(weight)
    for found, expected, before in zip(picture(fast), picture(eager), never, strict=True):
        assert rel_error(found, expected) < 0.1 and not torch.equal(found, before)
    weight.copy_(pristine)
    fast.refresh_weights({WEIGHT})
    assert all(torch.equal(*pair) for pair in zip(picture(fast), never, strict=True))
    assert (fast.report.counters.captures, fast.report.counters.traces) == (1, 1)
