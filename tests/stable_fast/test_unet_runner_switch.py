"""Prompts that change between steps: each step uses the right prompt, and each prompt is prepared once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.models.configs import UNetConfig
from modules.stable_fast import StableFastConfig, StableFastRunner, engine
from tests import tiny
from tests.stable_fast.networks import latent, random, rel_error
from tests.stable_fast.prompt_stage import recorded_evaluations
from tests.stable_fast.test_unet_runner_captured import AddressPool

TIMESTEPS = (900.0, 700.0, 500.0, 300.0, 20.5)
TURNS = (0, 1, 2, 1, 0)
TOLERANCE = 1e-5


@pytest.fixture(params=["fused", "full", "graph"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Levels "full" and "graph" with the stand-in for CUDA graphs, which replays on recorded addresses."""
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "GraphPool", AddressPool)
    return request.param


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The contexts for which the prompt stage was evaluated."""
    return recorded_evaluations(monkeypatch)


def three(images: int = 1, halves: int = 2, seed: int = 1, config: UNetConfig = tiny.SD1_UNET) -> Conditioning:
    contexts = [random(images * halves, 77, config.context_dim, seed=seed + number) for number in range(3)]
    return Conditioning(texts=tuple(map(TextInputs, contexts)))


def by_hand(network: torch.nn.Module, inputs: Conditioning, x: Tensor, turns: Sequence[int] = TURNS) -> list[Tensor]:
    """Calls the network with each step's own context."""
    contexts = [text.context for text in inputs.texts]
    outputs: list[Tensor] = []
    for which, timestep in zip(turns, TIMESTEPS, strict=True):
        rows = x.repeat(len(inputs.texts[0].context) // len(x), 1, 1, 1)
        outputs.append(network(rows, torch.full((len(rows),), timestep, device=x.device), contexts[which], None))
    return outputs


def switched(
    of: StableFastRunner | EagerRunner, inputs: Conditioning, x: Tensor, turns: Sequence[int] = TURNS
) -> list[Tensor]:
    of.prepare(inputs, TIMESTEPS)
    outputs: list[Tensor] = []
    for which, timestep in zip(turns, TIMESTEPS, strict=True):
        of.switch(which)
        outputs.append(of.step(x, timestep))
    return outputs


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(rel_error(one, other) for one, other in zip(found, expected, strict=True))


@torch.inference_mode()
def test_eager_switches() -> None:
    network, inputs = tiny.unet(tiny.SMALL_UNET), three()
    assert worst(switched(EagerRunner(network), inputs, latent()), by_hand(network, inputs, latent())) == 0


@torch.inference_mode()
def test_each_step_sees_its_own_prompt_which_is_prepared_once(level: str, evaluations: list[Tensor]) -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    fast = StableFastRunner(network, StableFastConfig(level=level))
    for seed in (1, 11):  # the second request reuses what was compiled and captured
        evaluations.clear()
        inputs, x = three(2, 3, seed), latent(2)
        assert worst(switched(fast, inputs, x), by_hand(network, inputs, x)) < TOLERANCE
    prepared = [] if level == "graph" else [text.context for text in inputs.texts]
    assert len(evaluations) == len(prepared) and all(map(torch.equal, evaluations, prepared))
    assert fast.report.counters.captures == (0 if level == "fused" else 1)
    switched(fast, inputs, x, (0, 0, 1, 1, 2))
    single = Conditioning(
        texts=(TextInputs(three(2, 3, seed=7).texts[0].context),)
    )  # uses its own context, whichever was active before
    fast.prepare(single, TIMESTEPS)
    found = [fast.step(x, timestep) for timestep in TIMESTEPS]
    assert worst(found, by_hand(network, single, x, (0,) * 5)) < TOLERANCE


@pytest.mark.parametrize("level", ["full"], indirect=True)
def test_weights_changed_between_two_turns_reach_every_prompt(level: str) -> None:
    network, inputs = tiny.unet(tiny.SMALL_UNET), three()
    fast = StableFastRunner(network, StableFastConfig(level=level))
    with torch.inference_mode():
        switched(fast, inputs, latent())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.02)
    fast.refresh_weights()
    with torch.inference_mode():
        for which in (1, 2, 0):
            fast.switch(which)
            (expected, *_) = by_hand(network, inputs, latent(), (which,) * 5)
            assert rel_error(fast.step(latent(), TIMESTEPS[0]), expected) < TOLERANCE


@pytest.mark.gpu
@torch.inference_mode()
@pytest.mark.parametrize("on_gpu", ["full", "graph", "fused"])
@pytest.mark.parametrize(("images", "halves"), [(1, 2), (2, 3)])
def test_captured_steps_see_the_switch(on_gpu: str, images: int, halves: int) -> None:
    config = UNetConfig(channels=(64, 128, 256, 256), context_dim=64, heads=2, groups=16)
    network = tiny.unet(config).half().cuda()
    fast = StableFastRunner(network, StableFastConfig(level=on_gpu))
    x = latent(images).half().cuda()
    for seed in (1, 11):
        given = three(images, halves, seed, config)
        inputs = Conditioning(texts=tuple(TextInputs(text.context.half().cuda()) for text in given.texts))
        expected = by_hand(network, inputs, x)
        assert worst(switched(fast, inputs, x), expected) < 2e-2 < worst([expected[0]], [expected[1]])
    assert fast.report.level == on_gpu, fast.report.reason
    assert fast.report.counters.captures == (0 if on_gpu == "fused" else 1)
