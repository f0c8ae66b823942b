"""Steps of the outer blocks alone, against an oracle that runs every block and exchanges what enters the last ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from modules.core.runner import Conditioning, TextInputs
from modules.models.unet import UNet
from modules.stable_fast import StableFastConfig, StableFastRunner, engine
from tests import tiny
from tests.stable_fast.fake_eight_bits import FakeEightBits
from tests.stable_fast.networks import XL_UNET, inputs_for, latent, random, rel_error
from tests.stable_fast.test_eight_bits import change as merge
from tests.stable_fast.test_unet_runner import FixedControl
from tests.stable_fast.test_unet_runner_captured import AddressPool
from tests.stable_fast.test_unet_runner_switch import three

LEVELS = ("off", "fused", "graph", "full")
TIMESTEPS = (900.0, 700.0, 500.0, 300.0, 20.5)
REUSES = (False, True, True, False, True)
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def address_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "GraphPool", AddressPool)


class Exchanged:
    """The network by itself. A hook keeps or replaces what enters the last `outer` output blocks."""

    def __init__(self, network: UNet, outer: int) -> None:
        self._network = network
        self._block = network.output_blocks[-outer]
        self._deep = torch.empty(0)
        self._reuses = False

    def _hook(self, block: object, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, skip = args[0], self._network.config.channels[0]
        if not self._reuses:
            self._deep = x[:, :-skip].clone()
        return (torch.cat([self._deep, x[:, -skip:]], dim=1), *args[1:])

    def step(self, inputs: Conditioning, x: Tensor, timestep: float, which: int, *, reuses: bool) -> Tensor:
        self._reuses = reuses
        text = inputs.texts[which]
        rows = x.repeat(len(text.context) // len(x), 1, 1, 1)
        times = torch.full((len(rows),), timestep, device=x.device)
        control = inputs.control(rows, timestep, text) if inputs.control else None
        handle = self._block.register_forward_pre_hook(self._hook)
        try:
            return self._network(rows, times, text.context, control, text.vector)
        finally:
            handle.remove()


@torch.inference_mode()
def worst(
    runner: StableFastRunner,
    oracle: Exchanged,
    inputs: Conditioning,
    x: Tensor,
    expected: Sequence[bool] = REUSES,
    turns: Sequence[int] = (0,) * len(REUSES),
    asked: Sequence[bool] = REUSES,
) -> float:
    """Returns the largest error of a schedule whose steps are `asked` to reuse and should reuse as `expected`."""
    runner.prepare(inputs, TIMESTEPS)
    errors: list[float] = []
    for index, timestep in enumerate(TIMESTEPS):
        runner.switch(turns[index])
        runner.reuse(is_allowed=asked[index])
        own = x + random(*x.shape, seed=index).to(x)
        found = runner.step(own, timestep)
        errors.append(rel_error(found, oracle.step(inputs, own, timestep, turns[index], reuses=expected[index])))
    return max(errors)


def made(network: UNet, level: str, **options: Any) -> StableFastRunner:
    return StableFastRunner(network, StableFastConfig(level=level, **options))


@pytest.mark.parametrize("level", LEVELS)
def test_sizes_batches_prompts_and_weights(level: str) -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    runner, oracle = made(network, level), Exchanged(network, 1)
    calls = ((1, 2, 16, 1), (2, 1, 8, 3), (2, 2, 16, 5), (1, 2, 16, 1))
    for images, halves, height, seed in calls:
        inputs = replace(inputs_for(tiny.SMALL_UNET, images=images, halves=halves, seed=seed), outer_blocks=1)
        assert worst(runner, oracle, inputs, latent(images, height, seed=seed)) < TOLERANCE
        assert worst(runner, oracle, replace(inputs, outer_blocks=0), latent(images, height), (False,) * 5) < TOLERANCE
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.02)
    runner.refresh_weights()
    assert worst(runner, oracle, inputs, latent()) < TOLERANCE
    assert runner.report.level == level and runner.report.counters.eager_steps == (45 if level == "off" else 0)
    assert runner.report.counters.traces == (3 if level in ("fused", "full") else 0)


@pytest.mark.parametrize("level", LEVELS)
def test_another_text_runs_in_full(level: str) -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    inputs = replace(three(config=tiny.SMALL_UNET), outer_blocks=1)
    expected = (False, True, False, False, True)
    assert worst(made(network, level), Exchanged(network, 1), inputs, latent(), expected, (0, 0, 1, 2, 2)) < TOLERANCE


@pytest.mark.parametrize("level", ("off", "full"))
def test_controls_that_end_run_in_full(level: str) -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    control = FixedControl(tiny.controlnet(tiny.SMALL_UNET))  # none below timestep 100
    inputs = Conditioning(texts=inputs_for(tiny.SMALL_UNET).texts, control=control, outer_blocks=1)
    expected = (False, True, True, False, False)
    assert worst(made(network, level), Exchanged(network, 1), inputs, latent(), expected) < TOLERANCE


@torch.inference_mode()
def test_nothing_is_reused_after_other_weights_or_in_another_pass() -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    runner, oracle = made(network, "full"), Exchanged(network, 1)
    inputs = replace(inputs_for(tiny.SMALL_UNET), outer_blocks=1)
    for change in (runner.refresh_weights, lambda: runner.prepare(inputs, TIMESTEPS), runner.release):
        runner.prepare(inputs, TIMESTEPS)
        runner.step(latent(), 900.0)
        change()
        if change == runner.release:
            runner.prepare(inputs, TIMESTEPS)
        runner.reuse(is_allowed=True)
        for reuses in (False, True):
            x = latent(seed=3 + reuses)
            assert rel_error(runner.step(x, 700.0), oracle.step(inputs, x, 700.0, 0, reuses=reuses)) < TOLERANCE


@pytest.mark.parametrize("level", ("off", "full"))
def test_few_sizes_are_kept_and_dropped_ones_come_back(level: str) -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    runner, oracle = made(network, level, max_shapes=2), Exchanged(network, 1)
    inputs = replace(inputs_for(tiny.SMALL_UNET), outer_blocks=1)
    for height in (8, 16, 24, 8, 16):
        assert worst(runner, oracle, inputs, latent(1, height, 8)) < TOLERANCE
    assert len(runner._deep._buffers) == 2


@pytest.mark.own_cache
@pytest.mark.parametrize("kind", ("fp8", "int8"))
def test_in_eight_bits_with_loras(kind: str) -> None:
    """As the same rounding and the same reuse in eager PyTorch. A LoRA changes neither graphs nor traces."""
    network = tiny.unet(tiny.SMALL_UNET)
    exactly, rounding = copy.deepcopy(network), copy.deepcopy(network)
    pristine = copy.deepcopy(network.state_dict())
    fake = FakeEightBits(rounding, kind)
    runner = made(network, "full", precision=kind, emulated=True)
    oracle, exact = Exchanged(rounding, 1), Exchanged(exactly, 1)
    inputs = replace(inputs_for(tiny.SMALL_UNET), outer_blocks=1)
    full = (False,) * len(REUSES)
    worst(runner, oracle, inputs, latent(), full, asked=full)  # the picture that finds the scales
    fake.calibrates = False
    events = None
    for strength, seed in ((0.0, 7), (0.3, 7), (0.6, 8), (0.0, 7)):
        network.load_state_dict(pristine)
        runner.refresh_weights(merge(network, strength, seed))
        for other in (rounding, exactly):
            other.load_state_dict(network.state_dict())
        # A number at the border of two may be rounded to either, which then changes all others a little.
        assert worst(runner, oracle, inputs, latent()) < 0.75 * worst(runner, exact, inputs, latent())
        counters = runner.report.counters
        events = events or (counters.traces, counters.captures)
        assert events == (counters.traces, counters.captures) == (2, 2)
    assert counters.eager_steps == 0 and runner.report.level == "full"


@pytest.mark.slow
def test_two_blocks_and_the_form_of_sdxl() -> None:
    for config, outer in ((tiny.SD1_SHORT_UNET, 2), (XL_UNET, 1)):
        network = tiny.unet(config)
        inputs = replace(inputs_for(config), outer_blocks=outer)
        if config.vector_dim:
            (text,) = inputs.texts
            inputs = replace(inputs, texts=(replace(text, vector=random(2, config.vector_dim)),))
        assert worst(made(network, "fused"), Exchanged(network, outer), inputs, latent()) < TOLERANCE


@pytest.mark.gpu
@pytest.mark.parametrize("level", ("fused", "graph", "full"))
@torch.inference_mode()
def test_on_a_gpu(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # real graphs
    config = replace(tiny.SD1_SHORT_UNET, channels=(64, 128, 256, 256))
    network = tiny.unet(config).half().cuda()
    runner, oracle = made(network, level), Exchanged(network, 1)
    for images, height, seed in ((1, 16, 1), (2, 8, 2), (1, 16, 3)):
        (text,) = inputs_for(config, images=images, seed=seed).texts
        inputs = Conditioning(texts=(TextInputs(text.context.half().cuda()),), outer_blocks=1)
        for number in range(2):
            x = latent(images, height, seed=number).half().cuda()
            assert worst(runner, oracle, inputs, x) < 2e-2
    assert runner.report.level == level, runner.report.reason
    assert runner.report.counters.captures == (0 if level == "fused" else 4)
    assert "ms/skipped step" in runner.report.status_line()
