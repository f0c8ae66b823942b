"""Branches of captured graphs: the same results, each joined in time, and no memory given away while one reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from modules.core.runner import Conditioning, TextInputs
from modules.generation.networks import CONTROL_BINDINGS
from modules.models.configs import UNetConfig
from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast.branches.find import VIEWS, find_branches, with_branches
from modules.stable_fast.branches.streams import beside, joined
from modules.stable_fast.compiled_module import CompiledModule
from modules.stable_fast.runtime import program
from modules.stable_fast.runtime.program import StageFunction
from tests import tiny
from tests.stable_fast.networks import inputs_for, latent, random, rel_error

TIMESTEP = 500.0
CONFIG = tiny.SMALL_UNET
WIDE = UNetConfig(channels=(64, 128, 256, 256), context_dim=64, heads=2, groups=16)  # for the kernels of a GPU


def on_gpu(inputs: Conditioning) -> Conditioning:
    return Conditioning(texts=(TextInputs(inputs.texts[0].context.half().cuda()),))


def lines(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node, list[fx.Node]]]:
    """Each branch's start and end, and what is computed between them."""
    found: list[tuple[fx.Node, fx.Node, list[fx.Node]]] = []
    for node in graph.nodes:
        if node.target is beside:
            (end,) = (user for user in node.users if user.target is joined)
            between: list[fx.Node] = []
            while (node := node.next) is not end:
                between += [node] if node.target not in VIEWS else []
            found.append((end.args[0], end, between))
    return found


def check(function: StageFunction, values: dict[str, Tensor]) -> int:
    """The number of branches, after a look at them and at their results."""
    module = with_branches(function.module)
    module.graph.lint()
    inputs = [values[name] for name in function.inputs]
    assert all(torch.equal(*pair) for pair in zip(module(*inputs), function.module(*inputs), strict=True))
    found = lines(module.graph)
    for start, end, between in found:
        held = set(end.args)
        assert between and all(node.target is not beside for node in between)
        for source in start.all_input_nodes:
            while source.target in VIEWS:
                source = source.all_input_nodes[0]
            assert source in held
    return len(found)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of branches of the stages that run, each of which is checked."""
    found: list[int] = []
    run = StageFunction.__call__

    def checked(function: StageFunction, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if function.has_branches:
            found.append(check(function, values))
        return run(function, values)

    monkeypatch.setattr(StageFunction, "__call__", checked)
    return found


@torch.inference_mode()
def test_shortcuts_of_a_unet(counts: list[int]) -> None:
    network = tiny.unet(CONFIG)
    runner = StableFastRunner(network, StableFastConfig(level="fused", timed_against_eager=False))
    runner.prepare(inputs_for(CONFIG), [TIMESTEP])
    runner.step(latent(), TIMESTEP)
    shortcuts = [layer for name, layer in network.named_modules() if name.endswith("skip_connection")]
    assert sum(counts[-2:]) == sum(not isinstance(layer, nn.Identity) for layer in shortcuts) == 5


@torch.inference_mode()
def test_results_of_a_control_net(counts: list[int]) -> None:
    network = tiny.controlnet(CONFIG)
    (text,) = inputs_for(CONFIG).texts
    fast = CompiledModule(network, bindings=CONTROL_BINDINGS, level="fused")
    inputs = (latent(2), random(2, 3, 128, 128), torch.full((2,), TIMESTEP), text.context)
    for found, expected in zip(fast(*inputs), network(*inputs), strict=True):
        assert rel_error(found, expected) < 1e-5
    assert sum(counts[-2:]) == 4


@pytest.mark.gpu
@torch.inference_mode()
def test_captured_branches_give_the_bits_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.unet(WIDE).half().cuda()
    inputs, laid = on_gpu(inputs_for(WIDE, images=2)), list[int]()

    def captured(lay: Callable[[fx.GraphModule], fx.GraphModule]) -> Callable[[Tensor], Tensor]:
        def counted(module: fx.GraphModule) -> fx.GraphModule:
            laid.append(len(find_branches(module.graph)))
            return lay(module)

        monkeypatch.setattr(program, "with_branches", counted)
        runner = StableFastRunner(network, StableFastConfig(timed_against_eager=False))
        runner.prepare(inputs, [TIMESTEP])
        runner.step(latent(2).half().cuda(), TIMESTEP)
        assert runner.report.in_force == ("full", "") and runner.report.counters.captures == 1
        return lambda x: runner.step(x, TIMESTEP)

    line, branched = captured(lambda module: module), captured(with_branches)
    assert sum(laid[:2]) == sum(laid[2:]) >= 5
    for seed in range(300):
        x = latent(2, seed=seed).half().cuda()
        assert torch.equal(branched(x), line(x))


@pytest.mark.gpu
@torch.inference_mode()
def test_a_captured_control_net_with_branches() -> None:
    network = tiny.controlnet(WIDE).half().cuda()
    (text,) = on_gpu(inputs_for(WIDE)).texts
    fast = CompiledModule(network, bindings=CONTROL_BINDINGS)
    hint, times = random(2, 3, 128, 128).half().cuda(), torch.full((2,), TIMESTEP, device="cuda")
    for seed in range(100):
        x = latent(2, seed=seed).half().cuda()
        found, expected = fast(x, hint, times, text.context), network(x, hint, times, text.context)
        assert max(rel_error(*pair) for pair in zip(found, expected, strict=True)) < 2e-2
    assert fast.report.in_force == ("full", "") and fast.report.counters.captures == 1
