"""Level "full" on a CPU, with a stand-in for CUDA graphs that has the same pitfall: replay on recorded addresses.

The stand-in records every operation with its actual input tensors. A replay runs the operations again on the same
tensors and overwrites the recorded results. So if a weight, prompt value or timestep is rebound instead of written in
place, or if a result is returned without a copy, the picture is wrong here, as it would be on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from modules.core.runner import Conditioning, TextInputs
from modules.generation.eager_runner import EagerRunner
from modules.generation.networks import VaeDecode
from modules.stable_fast import StableFastConfig, StableFastRunner, compile_module, compiled_module, engine
from modules.stable_fast.runtime.capture import CaptureError
from tests import tiny
from tests.stable_fast.networks import Pair, inputs_for, latent, random, rel_error

TOLERANCE = 1e-5


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        result = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, result))
        return result


class AddressGraph:
    """A CPU stand-in for a captured graph."""

    bytes = 1 << 20

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        self.is_released = False
        self._inputs = [tensor.clone() for tensor in inputs]
        with Recorder() as recorder:
            self._outputs = function(*self._inputs)
        self._tape = recorder.tape

    def __call__(self, *inputs: Tensor) -> Any:
        for buffer, value in zip(self._inputs, inputs, strict=True):
            buffer.copy_(value)
        for func, args, kwargs, recorded in self._tape:
            again = func(*args, **kwargs)
            for old, new in zip(pytree.tree_leaves(recorded), pytree.tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return pytree.tree_map_only(Tensor, torch.clone, self._outputs)

    def release(self) -> None:
        self.is_released = True
        self._tape.clear()


class AddressPool:
    """A CPU stand-in for the pool that graphs are captured into; `refuses` returns a reason not to capture, or ""."""

    def __init__(self, device: torch.device, refuses: Callable[[Sequence[Tensor]], str] = lambda inputs: "") -> None:
        self._refuses = refuses
        self._graphs: list[AddressGraph] = []

    @property
    def _live(self) -> list[AddressGraph]:
        return [graph for graph in self._graphs if not graph.is_released]

    @property
    def is_empty(self) -> bool:
        return not self._live

    @property
    def bytes(self) -> int:
        return sum(graph.bytes for graph in self._live)

    def __call__(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> AddressGraph:
        if reason := self._refuses(inputs):
            raise CaptureError(reason)
        self._graphs.append(AddressGraph(function, inputs))
        return self._graphs[-1]

    def start_over(self) -> None:
        for graph in self._live:
            graph.release()


@pytest.fixture(autouse=True)
def address_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "GraphPool", AddressPool)


def full_pair(level: str = "full", **options: Any) -> Pair:
    network = tiny.unet(tiny.SMALL_UNET)
    return Pair(StableFastRunner(network, StableFastConfig(level=level, **options)), EagerRunner(network))


def test_sizes_prompts_and_batches_are_captured_once_each() -> None:
    pair = full_pair()
    calls = ((1, 2, 16, 1), (1, 2, 8, 1), (2, 1, 16, 1), (1, 2, 16, 5), (1, 2, 8, 7))
    for images, halves, height, seed in calls:
        inputs = inputs_for(images=images, halves=halves, seed=seed)
        assert pair.step(inputs, latent(images, height, seed=seed), (900.0, 500.0, 20.5)) < TOLERANCE
    counters = pair.compiled.report.counters
    assert (counters.traces, counters.captures) == (1, 3)
    assert pair.compiled.report.level == "full" and pair.compiled.report.graph_mib == 3


def test_weights_changed_in_place_reach_captured_graphs() -> None:
    pair = full_pair()
    network, inputs = pair.compiled._network, inputs_for()
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    never = picture(pair.compiled, inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.02)
    pair.compiled.refresh_weights(set(before))
    assert pair.step(inputs, latent()) < TOLERANCE
    assert rel_error(picture(pair.compiled, inputs), never) > 1e-2
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(before[name])
    pair.compiled.refresh_weights(set(before))
    assert torch.equal(picture(pair.compiled, inputs), never)
    assert pair.compiled.report.counters.captures == 1


@torch.inference_mode()
def picture(compiled: StableFastRunner, inputs: Conditioning) -> Tensor:
    compiled.prepare(inputs, [900.0, 500.0])
    compiled.step(latent(), 900.0)
    return compiled.step(latent(), 500.0)


@torch.inference_mode()
def test_results_handed_out_are_never_overwritten() -> None:
    pair = full_pair()
    pair.compiled.prepare(inputs_for(), [900.0, 500.0])
    kept = [pair.compiled.step(latent(seed=seed), 900.0) for seed in range(3)]
    copies = [tensor.clone() for tensor in kept]
    pair.compiled.step(latent(seed=9), 500.0)
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_inside_and_outside_inference_mode() -> None:
    """Buffers created in one mode are written to in the other mode."""
    pair = full_pair()
    x, inputs = latent(), inputs_for()
    with torch.inference_mode():
        pair.compiled.prepare(inputs, [500.0, 20.5])
        inside = pair.compiled.step(x, 500.0).clone()
    with torch.no_grad():
        pair.compiled.refresh_weights()
        pair.compiled.prepare(inputs, [500.0, 20.5])
        assert torch.equal(pair.compiled.step(x, 500.0), inside)
        pair.compiled.step(x, 20.5)


class Comes:
    """Returns residuals above timestep 100 and none below."""

    def __call__(self, x: Tensor, timestep: float, text: TextInputs) -> tuple[Tensor, ...] | None:
        if timestep < 100:
            return None
        times = torch.full((x.shape[0],), timestep)
        hint = random(x.shape[0], 3, 8 * x.shape[2], 8 * x.shape[3])
        return tiny.controlnet(tiny.SMALL_UNET)(x, hint, times, text.context)


def test_controlnet_has_a_graph_of_its_own() -> None:
    pair = full_pair()
    inputs = Conditioning(texts=inputs_for().texts, control=Comes())
    assert pair.step(inputs, latent(1, 8, 16), (900.0, 500.0, 50.0, 20.5)) < TOLERANCE
    assert pair.compiled.report.counters.captures == 2


def test_graph_level_replays_eager_kernels() -> None:
    pair = full_pair("graph")
    for seed in (1, 2):
        assert pair.step(inputs_for(seed=seed), latent(seed=seed), (900.0, 500.0)) == 0.0
    counters = pair.compiled.report.counters
    assert (counters.captures, counters.traces, counters.replays) == (1, 0, 4)
    for parameter in pair.compiled._network.parameters():
        parameter.data = parameter.data * 1.01
    assert pair.step(inputs_for(), latent()) == 0.0


def test_graphs_dropped_for_count_are_captured_again() -> None:
    pair = full_pair(max_shapes=2)
    for width in (8, 16, 24, 8):
        assert pair.step(inputs_for(), latent(1, 8, width)) < TOLERANCE
    assert pair.compiled.report.counters.captures == 4 and pair.compiled.report.counters.traces == 1


def test_a_shape_that_cannot_be_captured_runs_fused_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(inputs: Sequence[Tensor]) -> str:
        return "operation not permitted when stream is capturing" if inputs[0].shape[-1] > 16 else ""

    monkeypatch.setattr(engine, "GraphPool", lambda device: AddressPool(device, refuses))
    pair = full_pair()
    assert pair.step(inputs_for(), latent(1, 8, 24)) < TOLERANCE
    status = pair.compiled.report.status_line()
    assert "fused instead of full (operation not permitted" in status
    assert pair.step(inputs_for(), latent(1, 8, 16)) < TOLERANCE
    assert "Stable-Fast: full," in pair.compiled.report.status_line()


def test_running_out_of_memory_finishes_the_picture_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = full_pair()
    assert pair.step(inputs_for(), latent()) < TOLERANCE
    pool = pair.compiled._engine._graphs.steps(torch.device("cpu")).capture
    pool(torch.neg, [torch.ones(1)])  # like a graph of another network in the same memory

    def no_memory(*arguments: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.Execution, "run_held", no_memory)
        assert pair.step(inputs_for(), latent(1, 24, 24)) == 0.0
    assert pool.is_empty
    assert "off instead of full (not enough memory)" in pair.compiled.report.status_line()
    assert len(pair.compiled.report.latest.steps._spans) < 2  # without steps from level full
    assert pair.step(inputs_for(), latent(1, 24, 24)) == 0.0
    assert pair.step(inputs_for(), latent()) < TOLERANCE
    assert "Stable-Fast: full," in pair.compiled.report.status_line()


@torch.no_grad()
def test_compiled_modules_are_captured_for_each_size() -> None:
    network = VaeDecode(tiny.vae()).eval()
    compiled = compile_module(network, (random(1, 4, 8, 8),), dims={"latent": ("batch", None, "height", "width")})
    for shape in ((1, 4, 8, 8), (2, 4, 8, 16), (1, 4, 8, 8)):
        x = random(*shape, seed=shape[0])
        assert rel_error(compiled(x), network(x)) < TOLERANCE
    assert compiled.report.counters.captures == 2 and compiled.report.counters.traces == 1
    for parameter in network.parameters():
        parameter.mul_(1.01)
    compiled.refresh_weights()
    assert rel_error(compiled(random(1, 4, 8, 8)), network(random(1, 4, 8, 8))) < TOLERANCE
    assert compiled.report.counters.captures == 2


@torch.no_grad()
def test_a_size_of_a_module_that_cannot_be_captured_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "operation not permitted when stream is capturing"
    pool = lambda device: AddressPool(device, lambda inputs: refusal if inputs[0].shape[-1] > 8 else "")  # noqa: E731
    monkeypatch.setattr(engine, "GraphPool", pool)
    network, dims = nn.Conv2d(4, 4, 3, padding=1).eval(), {"input": ("batch", None, "height", "width")}
    compiled = compile_module(network, (random(1, 4, 8, 8),), dims=dims)
    for width, words in ((16, f"fused instead of full ({refusal}"), (8, "Stable-Fast: full")):
        x = random(1, 4, 8, width)
        assert rel_error(compiled(x), network(x)) < TOLERANCE
        assert words in compiled.report.status_line()
    assert compiled.report.counters.captures == compiled.report.counters.replays == 1


@torch.no_grad()
def test_a_module_keeps_its_latest_sizes() -> None:
    network = VaeDecode(tiny.vae()).eval()
    compiled = compile_module(network, (random(1, 4, 8, 8),), dims={"latent": ("batch", None, "height", "width")})
    compiled._engine.config = StableFastConfig(max_shapes=2)
    for width in (8, 16, 8, 24, 8, 16):  # 16 makes room for 24, and 24 for 16
        x = random(1, 4, 8, width, seed=width)
        assert rel_error(compiled(x), network(x)) < TOLERANCE
        assert len(compiled._engine._executions) <= 2 and len(compiled._engine._graphs.steps(x.device)) <= 2
    assert compiled.report.counters.captures == 4 and compiled.report.counters.traces == 1


@torch.no_grad()
def test_a_prepared_prompt_is_set_again_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted call loses the values that it prepared."""
    network = tiny.unet(tiny.SMALL_UNET)
    fast = compiled_module.CompiledModule(network, bindings={"context": "prompt"})
    x, times, context = latent(), torch.tensor([500.0]), inputs_for(halves=1).texts[0].context
    fast.prepare(context=context)

    def interrupted(*arguments: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "make_ready", interrupted)
        fast(x, timesteps=times)
    with torch.no_grad():
        assert rel_error(fast(x, timesteps=times), network(x, times, context)) < TOLERANCE


def test_prepared_prompts_reach_captured_graphs() -> None:
    network = tiny.controlnet(tiny.SMALL_UNET)
    x, hint, context, times = random(1, 4, 8, 8), random(1, 3, 64, 64), random(1, 77, 64), torch.full((1,), 7.0)
    bindings = {"x": "latent", "hint": "prompt", "timesteps": "time", "context": "prompt"}
    compiled = compile_module(network, {"x": x, "hint": hint, "timesteps": times, "context": context}, bindings)
    for sign in (1, -1):
        compiled.prepare(hint=sign * hint, context=context)
        for scale in (1.0, 0.5):
            found, expected = compiled(x * scale, timesteps=times * scale), None
            expected = network(x * scale, sign * hint, times * scale, context)
            assert max(rel_error(a, b) for a, b in zip(found, expected, strict=True)) < TOLERANCE
    assert compiled.report.counters.captures == 1


class Times(nn.Module):
    def forward(self, x: Tensor, factor: float) -> Tensor:
        return x.cos() * factor


@torch.no_grad()
def test_a_module_at_level_graph_is_not_captured_for_every_number() -> None:
    network = Times().eval()
    compiled = compiled_module.CompiledModule(network, level="graph")
    for value in range(8):
        assert torch.equal(compiled(random(2, 3), float(value)), random(2, 3).cos() * value)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'factor'"):
        compiled(random(2, 3))
    counters = compiled.report.counters
    assert (counters.captures, counters.replays, counters.eager_steps) == (4, 4, 8)
    assert compiled.report.level == "graph" and "factor is a number" in compiled.report.status_line()
