"""What other programs put into a network, and take out of a pipeline, never leads to another picture than eager's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_pipeline
from modules.stable_fast.pipelines import front
from modules.stable_fast.pipelines.front import MOST_MOVES
from tests.stable_fast.networks import random


class Counting:
    """A processor in the manner of Prompt-to-Prompt: its result depends on how often it was called."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(1)
        return x * len(self.calls)


class Network(nn.Module):
    """A layer, and a processor after it."""

    def __init__(self, processor: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.layer, self.processor = nn.Linear(4, 4), processor

    def forward(self, x: Tensor) -> Tensor:
        return self.processor(self.layer(x))


class Pipe:
    """A pipeline of one network that runs for two steps."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    @property
    def components(self) -> dict[str, Any]:
        return {"network": self.network}

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.network(self.network(x))


def pair(network: nn.Module) -> tuple[Pipe, Pipe]:
    return Pipe(network), Pipe(copy.deepcopy(network))


def assert_alike(pipe: Pipe, plain: Pipe) -> None:
    x = random(2, 4)
    torch.testing.assert_close(pipe(x), plain(x))


def counting_processor(pipe: Pipe) -> None:
    pipe.network.processor = Counting()


def hook(pipe: Pipe) -> None:
    seen: list[int] = []

    def scale(_module: nn.Module, _args: Any, result: Tensor) -> Tensor:
        seen.append(1)
        return result * len(seen)

    pipe.network.layer.register_forward_hook(scale)


def forward(pipe: Pipe) -> None:
    seen: list[int] = []
    own = pipe.network.layer.forward

    def counted(x: Tensor) -> Tensor:
        seen.append(1)
        return own(x) * len(seen)

    pipe.network.layer.forward = counted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (counting_processor, "changes its own attribute processor while it runs"),
        (hook, "hook or a forward of its own on its Linear"),
        (forward, "hook or a forward of its own on its Linear"),
    ],
)
@pytest.mark.parametrize("is_compiled_before", [True, False])
def test_code_that_remembers_calls_runs_eagerly(
    change: Callable[[Pipe], None], reason: str, *, is_compiled_before: bool
) -> None:
    pipe, plain = pair(Network())
    fast = compile_pipeline(pipe)
    if is_compiled_before:
        assert_alike(pipe, plain)
    for each in (pipe, plain):
        change(each)
    for _ in range(3):
        assert_alike(pipe, plain)
    assert reason in fast.report.parts["network"].reason and fast.report.parts["network"].level == "off"


def test_changes_after_a_picture_are_seen_at_the_next() -> None:
    pipe, plain = pair(Network())
    fast = compile_pipeline(pipe)
    for _ in range(2):
        assert_alike(pipe, plain)
    assert fast.report.parts["network"].level == "fused"
    for change in (past_the_version, other_weight, other_processor, hook):
        for each in (pipe, plain):
            change(each)
        assert_alike(pipe, plain)
    assert fast.report.parts["network"].level == "off"


def past_the_version(pipe: Pipe) -> None:
    pipe.network.layer.weight.data.mul_(3)


def other_weight(pipe: Pipe) -> None:
    pipe.network.layer.weight = nn.Parameter(random(4, 4, seed=7), requires_grad=False)


def other_processor(pipe: Pipe) -> None:
    pipe.network.processor = torch.tanh


def test_a_hook_that_is_gone_costs_nothing() -> None:
    pipe, plain = pair(Network())
    fast = compile_pipeline(pipe)
    handle = pipe.network.layer.register_forward_hook(lambda *_: None)
    assert_alike(pipe, plain)
    handle.remove()
    assert_alike(pipe, plain)
    assert fast.report.parts["network"].level == "fused"


def test_a_hook_that_came_and_went_needs_no_new_trace() -> None:
    pipe, plain = pair(Network())
    fast = compile_pipeline(pipe)
    assert_alike(pipe, plain)
    handles = [each.network.layer.register_forward_hook(lambda _, __, result: result * 2) for each in (pipe, plain)]
    for _ in range(2):
        assert_alike(pipe, plain)
    assert "hook" in fast.report.parts["network"].reason
    for handle in handles:
        handle.remove()
    past_the_version(pipe)
    past_the_version(plain)
    assert_alike(pipe, plain)
    report = fast.report.parts["network"]
    assert report.level == "fused" and report.counters.traces == 1


def test_hooks_are_looked_for_only_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, plain = pair(Network())
    compile_pipeline(pipe)
    asked: list[nn.Module] = []

    def note(network: nn.Module) -> str:
        asked.append(network)
        return ""

    assert_alike(pipe, plain)
    monkeypatch.setattr(front, "why_not_this_picture", note)
    assert_alike(pipe, plain)
    assert not asked
    for each in (pipe, plain):
        other_processor(each)
    assert_alike(pipe, plain)
    assert asked == [pipe.network]


def test_a_copy_can_be_compiled_too() -> None:
    pipe, plain = pair(Network())
    compile_pipeline(pipe)
    assert_alike(pipe, plain)
    twin = copy.deepcopy(pipe)
    fast = compile_pipeline(twin)
    assert_alike(twin, plain)
    assert fast.report.parts["network"].counters.fused_steps == 2


def test_a_network_that_leaves_the_pipeline_is_let_go() -> None:
    pipe, _ = pair(Network())
    first, fast = pipe.network, compile_pipeline(pipe)
    pipe(random(2, 4))
    pipe.network = Network().eval()
    assert_alike(pipe, Pipe(copy.deepcopy(pipe.network)))
    assert "forward" not in vars(first) and fast.report.parts["network"].counters.traces == 1
    pipe.network = first
    assert_alike(pipe, Pipe(copy.deepcopy(first)))
    fast.remove()
    assert "forward" not in vars(first)


def test_weights_that_move_before_each_picture_are_not_compiled_each_time() -> None:
    """diffusers casts the VAE of SDXL to fp32 and back in each picture."""
    pipe, plain = pair(Network())
    fast = compile_pipeline(pipe)
    for _ in range(MOST_MOVES + 2):
        pipe.network.double().float()
        assert_alike(pipe, plain)
    part = fast.report.parts["network"]
    assert "its weights move to other memory" in part.reason and part.level == "off"


def test_weights_that_move_now_and_then_stay_compiled() -> None:
    pipe, plain = pair(Network())
    fast = compile_pipeline(pipe)
    for number in range(2 * MOST_MOVES):
        if number % 2:
            pipe.network.double().float()
        assert_alike(pipe, plain)
    assert fast.report.parts["network"].level == "fused"
