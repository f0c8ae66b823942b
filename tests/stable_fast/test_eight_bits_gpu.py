"""Products in eight bits on a GPU: captured once the scales are known, near eager, and the same graph for each LoRA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.generation.eager_runner import EagerRunner
from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.registry import REFERENCE
from modules.stable_fast.precision import why_no_effect
from tests.stable_fast.networks import inputs_for, latent, random, rel_error
from tests.stable_fast.test_unet_runner_gpu import CONFIG, network_on_gpu, pictures

pytestmark = [pytest.mark.gpu, pytest.mark.own_cache]

WEIGHT = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"


def picture(runner: StableFastRunner | EagerRunner) -> list[Tensor]:
    return [step.clone() for step in pictures(runner, inputs_for(CONFIG), latent())]


@pytest.mark.parametrize(("kind", "most"), [("fp8", 0.1), ("int8", 0.04)])
def test_steps_are_captured_and_a_lora_needs_no_new_graph(kind: str, most: float) -> None:
    network = network_on_gpu()
    reason = why_no_effect(kind, torch.device("cuda", 0), network)
    if reason:
        pytest.skip(reason)
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
