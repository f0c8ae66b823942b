"""The runner against the eager one: sizes, batches, guidance, ControlNet, inpainting, LoRA-like changes, fallbacks."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType

import pytest
import torch
from torch import Tensor, nn

from modules.core.runner import Conditioning, TextInputs
from modules.models.unet import UNet
from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast.config import DISABLE_VARIABLE
from modules.stable_fast.passes import LEAN_PASSES, PASSES, passes_for
from modules.stable_fast.runtime.execution import Execution
from modules.stable_fast.store.ready import Effort
from tests import tiny
from tests.stable_fast.networks import Pair, inputs_for, latent, pair_of, random, rel_error

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def pair() -> Pair:
    """One runner, for all tests that can share its programs."""
    return pair_of(tiny.unet(tiny.SD1_SHORT_UNET))


SIZES = [(16, 16), (8, 24), (24, 8), (16, 16)]


def test_four_sizes_there_and_back_with_one_trace(pair: Pair) -> None:
    for height, width in SIZES + SIZES[::-1]:
        assert pair.step(inputs_for(), latent(1, height, width)) < TOLERANCE
    assert pair.compiled.report.counters.traces == 1


@pytest.mark.parametrize("images", [1, 2, 4])
@pytest.mark.parametrize("halves", [1, 2])
def test_batches_with_and_without_guidance(pair: Pair, images: int, halves: int) -> None:
    assert pair.step(inputs_for(images=images, halves=halves), latent(images, 8, 16)) < TOLERANCE
    assert pair.compiled.report.counters.traces == 1


def test_longer_prompts_and_a_new_prompt(pair: Pair) -> None:
    for tokens, seed in ((77, 1), (154, 2), (77, 3)):
        assert pair.step(inputs_for(tokens=tokens, seed=seed), latent()) < TOLERANCE
    assert pair.compiled.report.counters.traces == 1


@torch.inference_mode()
def test_timesteps_that_were_not_announced(pair: Pair) -> None:
    assert pair.step(inputs_for(), latent(), (900.0, 899.25, 500.0)) < TOLERANCE
    pair.compiled.prepare(inputs_for(), [900.0])
    pair.eager.prepare(inputs_for(), [900.0])
    for timestep in (900.0, 123.456, 0.0):
        assert rel_error(pair.compiled.step(latent(), timestep), pair.eager.step(latent(), timestep)) < TOLERANCE


@torch.inference_mode()
def test_results_are_never_overwritten(pair: Pair) -> None:
    pair.compiled.prepare(inputs_for(), [900.0, 500.0])
    first = pair.compiled.step(latent(), 900.0)
    kept = first.clone()
    pair.compiled.step(latent(seed=7), 500.0)
    assert torch.equal(first, kept)


def test_rows_do_not_see_each_other(pair: Pair) -> None:
    """Image i of a batch equals the same image made alone."""
    inputs = inputs_for(images=2)
    x = latent(2)
    with torch.inference_mode():
        pair.compiled.prepare(inputs, [500.0])
        both = pair.compiled.step(x, 500.0)
        pair.compiled.prepare(Conditioning(texts=(TextInputs(inputs.texts[0].context[1::2]),)), [500.0])
        alone = pair.compiled.step(x[1:], 500.0)
    assert rel_error(alone, both[1::2]) < TOLERANCE


def test_sd2() -> None:
    config = replace(tiny.SD2_UNET, res_blocks=1)
    pair = pair_of(tiny.unet(config))
    for height, width in SIZES:
        assert pair.step(inputs_for(config), latent(1, height, width)) < TOLERANCE
    assert pair.step(inputs_for(config, halves=1), latent()) < TOLERANCE


class FixedControl:
    """A ControlNet that is off below timestep 100, as after its end percentage."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor, timestep: float, text: TextInputs) -> tuple[Tensor, ...] | None:
        if timestep < 100:
            return None
        hint = random(x.shape[0], 3, 8 * x.shape[2], 8 * x.shape[3], seed=4)
        return self.network(x, hint, torch.full((x.shape[0],), timestep), text.context)


def test_controlnet_residuals_that_come_and_go() -> None:
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    for images, halves, height in ((1, 2, 16), (2, 1, 8)):
        texts = inputs_for(images=images, halves=halves).texts
        inputs = Conditioning(texts=texts, control=FixedControl(tiny.controlnet(tiny.SMALL_UNET)))
        assert pair.step(inputs, latent(images, height, 16), (900.0, 500.0, 50.0)) < TOLERANCE
    assert pair.compiled.report.counters.traces == 2  # with and without residuals


def test_inpainting_channels() -> None:
    pair = pair_of(tiny.unet(replace(tiny.SMALL_UNET, in_channels=9)))
    inputs = Conditioning(texts=inputs_for(images=2).texts, concat=random(2, 5, 16, 16, seed=3))
    assert pair.step(inputs, latent(2)) < TOLERANCE


@pytest.mark.parametrize("size", [(17, 13), (12, 8)])
def test_sizes_that_are_no_multiple_of_eight(size: tuple[int, int]) -> None:
    four_levels = replace(tiny.SMALL_UNET, channels=(32,) * 4, depths=(1, 0, 0, 0))
    pair = pair_of(tiny.unet(four_levels))
    assert pair.step(inputs_for(), latent(1, *size)) < TOLERANCE
    assert pair.step(inputs_for(images=2), latent(2, *size)) < TOLERANCE
    assert pair.compiled.report.counters.traces == 1


@torch.no_grad()
def change_weights(network: nn.Module, strength: float) -> tuple[set[str], dict[str, Tensor]]:
    """Changes weights of every kind in place, like a LoRA; returns the changed names and the old weights."""
    kinds = ("attn1.to_q.weight", "attn2.to_k.weight", "ff.net.0.proj.weight", "in_layers.2.weight", "op.weight")
    kinds += ("proj_in.weight", "skip_connection.weight", "emb_layers.1.weight", "conv.weight")
    before: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        if name.endswith(kinds):
            before[name] = parameter.clone()
            parameter.add_(torch.randn_like(parameter) * strength * parameter.std())
    return set(before), before


@torch.no_grad()
def restore(network: nn.Module, before: dict[str, Tensor]) -> None:
    parameters = dict(network.named_parameters())
    for name, weight in before.items():
        parameters[name].copy_(weight)


def test_weights_changed_in_place_are_followed_without_a_trace() -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    pair = pair_of(network)
    inputs, x = inputs_for(), latent()

    def picture() -> Tensor:
        with torch.inference_mode():
            pair.compiled.prepare(inputs, [900.0, 500.0])
            return pair.compiled.step(x, 500.0)

    never = picture()
    for strength in (0.5, 1.0):
        changed, before = change_weights(network, strength)
        pair.compiled.refresh_weights(changed)
        assert rel_error(picture(), never) > 1e-2
        assert pair.step(inputs, x) < TOLERANCE
        restore(network, before)
        pair.compiled.refresh_weights(changed)
        assert torch.equal(picture(), never)
    assert pair.compiled.report.counters.traces == 1


def test_a_refresh_rewrites_only_what_depends_on_the_change() -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    runner = StableFastRunner(network)
    with torch.inference_mode():
        runner.prepare(inputs_for(), [500.0])
        runner.step(latent(), 500.0)
    name = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    addresses = {key: value.data_ptr() for key, value in runner._engine.store.values.items()}
    assert runner._engine.store.refresh({name}) == 1
    assert runner._engine.store.refresh({"out.0.weight"}) == 0
    assert addresses == {key: value.data_ptr() for key, value in runner._engine.store.values.items()}


def test_weights_moved_to_other_memory_start_over() -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    pair = pair_of(network)
    assert pair.step(inputs_for(), latent()) < TOLERANCE
    for parameter in network.parameters():
        parameter.data = parameter.data * 1.01
    assert pair.step(inputs_for(), latent()) < TOLERANCE
    assert pair.compiled.report.counters.traces == 2


class CannotBeTraced(UNet):
    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: tuple[Tensor, ...] | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        if x.sum() > 1e9:
            return x
        return super().forward(x, timesteps, context, control, vector)


def test_a_network_that_cannot_be_traced_runs_eagerly_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pair = pair_of(tiny.randomise(CannotBeTraced(tiny.SMALL_UNET)))
    with caplog.at_level(logging.WARNING, logger="modules.stable_fast"):
        assert pair.step(inputs_for(), latent()) == 0.0
        assert pair.step(inputs_for(), latent()) == 0.0
    report = pair.compiled.report
    assert report.level == "off" and "cannot be traced" in report.reason
    assert len([record for record in caplog.records if "cannot be traced" in record.message]) == 1
    assert "off instead of full" in report.status_line() and report.counters.eager_steps == 4


def test_the_cpu_has_no_graphs_and_the_status_says_it(pair: Pair) -> None:
    pair.step(inputs_for(), latent())
    assert "fused instead of full (CUDA graphs need an NVIDIA GPU)" in pair.compiled.report.status_line()
    assert "ms/step" in pair.compiled.report.status_line()


def test_graph_level_without_a_gpu_is_eager() -> None:
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    pair.compiled = StableFastRunner(tiny.unet(tiny.SMALL_UNET), StableFastConfig(level="graph"))
    assert pair.step(inputs_for(), latent()) == 0.0
    assert pair.compiled.report.level == "off"


def test_the_environment_can_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "off")
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    assert pair.step(inputs_for(), latent()) == 0.0
    assert pair.compiled.report.counters.traces == 0
    assert DISABLE_VARIABLE in pair.compiled.report.status_line()


def test_the_table_of_shapes_is_bounded() -> None:
    runner = StableFastRunner(tiny.unet(tiny.SMALL_UNET), StableFastConfig(max_shapes=2))
    with torch.inference_mode():
        runner.prepare(inputs_for(), [500.0])
        for width in (8, 16, 24, 8):
            runner.step(latent(1, 8, width), 500.0)
    assert len(runner._engine._executions) == 2 and runner.report.counters.traces == 1


def test_release_frees_the_prepared_weights() -> None:
    runner = StableFastRunner(tiny.unet(tiny.SMALL_UNET))
    with torch.inference_mode():
        runner.prepare(inputs_for(), [500.0])
        runner.step(latent(), 500.0)
    kept = [weakref.ref(value) for value in runner._engine.store.values.values()]
    assert kept
    runner.release()
    gc.collect()
    assert not [reference for reference in kept if reference() is not None and reference()._base is None]


def test_step_before_prepare_is_refused() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        StableFastRunner(tiny.unet(tiny.SMALL_UNET)).step(latent(), 1.0)


def test_nothing_that_was_computed_without_kernels_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """While kernels are only compiled, operations return uninitialised memory. Timing comes after, with real values."""
    ready: list[object] = []

    def make_ready(run: Callable[[], object], device: torch.device, seconds: float, **_: object) -> Effort:
        run()
        execution = ready_of(run)
        for row in execution._times._rows.values():
            for values in row.values():
                values.fill_(torch.nan)
        for value in execution._prompt_values.values():
            value.fill_(torch.nan)
        run()
        held = [execution.known_at(900.0), execution._prompt_values]
        assert all(value.isfinite().all() for values in held for value in values.values()) and held[0]
        for value in execution._prompt_values.values():
            value.fill_(torch.nan)
        ready.append(execution)
        return Effort()

    monkeypatch.setattr("modules.stable_fast.engine.make_ready", make_ready)
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    assert pair.step(inputs_for(), latent()) < TOLERANCE and len(ready) == 1


def ready_of(run: Callable[[], object]) -> Execution:
    """Returns the execution captured in the closure of a runner's function, or of one that it wraps."""
    held = [cell.cell_contents for cell in run.__closure__ or ()]
    own = [value for value in held if isinstance(value, Execution)]
    return own[0] if own else next(ready_of(value) for value in held if isinstance(value, FunctionType))


def test_making_ready_is_done_again_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def make_ready(run: Callable[[], object], device: torch.device, seconds: float, **_: object) -> Effort:
        calls.append(seconds)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return Effort()

    monkeypatch.setattr("modules.stable_fast.engine.make_ready", make_ready)
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    with pytest.raises(KeyboardInterrupt):
        pair.step(inputs_for(), latent())
    assert pair.step(inputs_for(), latent()) < TOLERANCE and len(calls) == 2


def test_a_latent_of_another_type_than_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samplers work in float32, but the program gets channels-last maps of the network's dtype."""
    seen: list[Tensor] = []
    original = Execution.run
    monkeypatch.setattr(
        Execution, "run", lambda self, moving, times: [seen.extend(moving), original(self, moving, times)][1]
    )
    network = tiny.unet(tiny.SMALL_UNET).to(torch.bfloat16)
    runner = StableFastRunner(network, StableFastConfig(level="fused"))
    context = inputs_for().texts[0].context.to(torch.bfloat16)
    with torch.inference_mode():
        runner.prepare(Conditioning(texts=(TextInputs(context),)), [500.0])
        y = runner.step(latent(1, 16, 24), 500.0)
    assert y.dtype == torch.bfloat16 and seen
    assert all(x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_the_status_is_of_the_size_that_ran_last(pair: Pair) -> None:
    for height, width in ((8, 16), (16, 8), (8, 16)):
        pair.step(inputs_for(), latent(1, height, width))
        assert f"1x4x{height}x{width} " in next(reversed(pair.compiled.report.shapes))


@pytest.mark.parametrize(("asked", "variable"), [("fused", ""), ("full", "fused")])
def test_level_fused_on_a_gpu_adds_no_weights(asked: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", variable)
    taken: list[object] = []

    def noted(device: torch.device, *, captured: bool, **_: object) -> object:
        taken.append((device, captured))
        return LEAN_PASSES

    monkeypatch.setattr("modules.stable_fast.compiler.passes_for", noted)
    runner = StableFastRunner(tiny.unet(tiny.SMALL_UNET), StableFastConfig(level=asked))
    runner.prepare(inputs_for(), [500.0])
    runner.step(latent(), 500.0)
    assert taken == [(torch.device("cpu"), False)]
    assert passes_for(torch.device("cuda"), captured=False) == LEAN_PASSES
    assert passes_for(torch.device("cpu"), captured=False) == PASSES
    assert passes_for(torch.device("cuda"), captured=True) == PASSES


def test_tables_of_choices_are_read_once_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Level `fused` is CPU-bound: reading the tables at each step would cost as much as some kernels."""
    entered: list[float] = []
    monkeypatch.setattr(
        "modules.stable_fast.engine.make_ready", lambda run, device, seconds, **_: entered.append(seconds) or Effort()
    )
    fast = StableFastRunner(tiny.unet(tiny.SMALL_UNET), StableFastConfig(level="fused", tuning_seconds=7.0))
    fast.prepare(inputs_for(), [500.0, 400.0])
    for timestep in (500.0, 400.0, 500.0):
        fast.step(latent(), timestep)
    assert entered == [7.0]


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(1, 5, 16, 16), (1, 4, 16)])
def test_a_step_that_eager_refuses_changes_nothing(shape: tuple[int, ...]) -> None:
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    pair.compiled = StableFastRunner(tiny.unet(tiny.SMALL_UNET), StableFastConfig(max_shapes=1))
    assert pair.step(inputs_for(), latent()) < TOLERANCE
    before = pair.compiled.report.to_dict()
    for runner in (pair.eager, pair.compiled):
        with pytest.raises(RuntimeError, match="to have 4 channels, but got"):
            runner.step(random(*shape), 20.5)
    assert pair.compiled.report.to_dict() == before and pair.compiled._engine._executions
    assert pair.step(inputs_for(), latent()) < TOLERANCE
    assert pair.compiled.report.counters.traces == 1 and pair.compiled.report.level == "fused"


@torch.inference_mode()
def test_moved_weights_are_followed_when_told_of_a_change() -> None:
    pair = pair_of(tiny.unet(tiny.SMALL_UNET))
    pair.step(inputs_for(), latent())
    for parameter in pair.compiled._network.parameters():
        parameter.data = parameter.data * 1.01
    pair.compiled.refresh_weights()
    pair.compiled.prepare(inputs_for(), [20.5])
    pair.eager.prepare(inputs_for(), [20.5])
    assert rel_error(pair.compiled.step(latent(), 20.5), pair.eager.step(latent(), 20.5)) < TOLERANCE
