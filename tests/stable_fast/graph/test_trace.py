"""Tracing: the promised form, in-place modules, constants, and networks that cannot become one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx.config
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modules.stable_fast import CompiledModule, compile_module
from modules.stable_fast.graph.trace import TraceError, trace, tracing
from tests import tiny
from tests.stable_fast.networks import UNET_DIMS, operations, random, rel_error, unet_call

pytestmark = pytest.mark.own_cache


def test_the_form_that_passes_rely_on() -> None:
    traced = trace(tiny.unet(), unet_call(), UNET_DIMS)
    counts = operations(traced.graph)
    assert counts["group_norm"] == 61 and counts["layer_norm"] == 48
    assert counts["scaled_dot_product_attention"] == 32 and counts["gelu"] == 16
    assert counts["upsample_nearest2d.vec"] == 3
    assert traced.inputs == ("x", "timesteps", "context")
    assert set(traced.weights.values()) == set(dict(tiny.unet().named_parameters()))
    x = next(node for node in traced.graph.nodes if node.name == "x")
    height, width = traced.sizes.primes["height"], traced.sizes.primes["width"]
    assert tuple(x.meta["val"].shape) == (traced.sizes.primes["batch"], 4, 8 * height, 8 * width)


def test_weights_of_the_module_are_left_alone() -> None:
    network = tiny.unet(tiny.SMALL_UNET).train()
    before = network.out[2].weight
    trace(network, unet_call(), UNET_DIMS)
    assert network.out[2].weight is before and before.device.type == "cpu" and network.training


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y += 1
        return torch.relu_(y)


def test_in_place_operations_become_functional() -> None:
    compiled = compile_module(InPlace().eval(), (random(2, 3),))
    x = random(2, 3, seed=5)
    assert torch.equal(compiled(x), torch.relu(x * 2 + 1))


class WithConstant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0, 3.0]) + torch.arange(3, device=x.device)


def test_tensors_made_while_tracing_are_kept() -> None:
    compiled = compile_module(WithConstant().eval(), (random(2, 3),))
    x = random(2, 3, seed=5)
    assert torch.equal(compiled(x), WithConstant()(x))


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_branch_on_data_is_a_trace_error_with_one_line() -> None:
    with pytest.raises(TraceError, match="Branches cannot be traced") as caught:
        compile_module(Branches().eval(), (random(2, 3),))
    assert "\n" not in str(caught.value)


class GrowsByOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, : x.shape[1] - 1]


def test_a_size_that_primes_cannot_express_is_refused_not_wrong(caplog: pytest.LogCaptureFixture) -> None:
    """A program with wrong resulting sizes is refused, and each size is traced separately."""
    compiled = compile_module(GrowsByOne().eval(), (random(2, 8),), dims={"x": (None, "length")})
    for _ in range(2):
        assert torch.equal(compiled(random(2, 8)), random(2, 8)[:, :7])
    assert "traces GrowsByOne anew for each size" in caplog.text and "expected" in caplog.text
    assert compiled.report.level != "off" and compiled.report.counters.eager_steps == 0
    exact = compile_module(GrowsByOne().eval(), (random(2, 8),))
    assert torch.equal(exact(random(2, 8)), random(2, 8)[:, :7]) and exact.report.level != "off"


def test_outputs_keep_their_structure() -> None:
    network = tiny.controlnet(tiny.SMALL_UNET)
    call = {**unet_call(batch=1, height=8, width=8), "hint": random(1, 3, 64, 64)}
    found = compile_module(network, call)(**call)
    expected = network(**call)
    assert isinstance(found, tuple) and len(found) == 5
    assert max(rel_error(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5


class Calls(nn.Module):
    """A linear layer, a buffer, a number, and a `forward` supplied by the test."""

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("count", torch.ones(3))
        self.number = 0
        self.function = forward
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def _counts(m: Any, x: Tensor) -> Tensor:
    m.number += 1
    return x * 2 + m.number


def _counts_in_a_buffer(m: Any, x: Tensor) -> Tensor:
    m.count += 1
    return x * m.count


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (m.linear(x), None),
        lambda m, x: (m.linear(x), {"a": 3, "b": [x * 2, "s", True, None]}),
        lambda m, x: [1.5, m.linear(x)],
    ],
)
@torch.no_grad()
def test_what_is_no_tensor_in_a_result_comes_back(forward: Callable[..., Any]) -> None:
    module, x = Calls(forward), random(2, 3)
    compiled = compile_module(module, (x,))
    found, expected = pytree.tree_flatten(compiled(x)), pytree.tree_flatten(module(x))
    assert found[1] == expected[1] and compiled.report.level == "fused"
    for a, b in zip(found[0], expected[0], strict=True):
        assert rel_error(a, b) < 1e-5 if isinstance(b, Tensor) else (a == b and type(a) is type(b))


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: (m.linear(x), x), "it returns its input x as it is"),
        (lambda m, x: (m.linear(x), m.linear.weight), "it returns one of its weights as it is"),
        (lambda m, x: 3, "its result holds no tensor"),
        (_counts, "it changes its own attribute number while it runs"),
        (_counts_in_a_buffer, "it changes its own buffer count while it runs"),
        (lambda m, x: x.add_(1) * 2, "it writes to its input x"),
        (lambda m, x: (x + 1).as_strided((2,), (1,)) * 2, "it reads memory by strides"),
    ],
)
@torch.no_grad()
def test_what_a_graph_cannot_do_is_refused_and_runs_eagerly(forward: Callable[..., Any], words: str) -> None:
    module, x = Calls(forward), random(2, 3)
    with pytest.raises(TraceError, match=f"Calls cannot be traced: {words}"):
        compile_module(module, (x,))
    compiled, twin = CompiledModule(module), Calls(forward)
    twin.load_state_dict(module.state_dict())
    for _ in range(3):
        mine, theirs = x.clone(), x.clone()
        found, expected = pytree.tree_leaves(compiled(mine)), pytree.tree_leaves(twin(theirs))
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(found, expected, strict=True))
        assert torch.equal(mine, theirs)
    assert words in compiled.report.status_line()


def test_an_input_that_comes_back_after_fusion_is_a_trace_error() -> None:
    with pytest.raises(TraceError, match="Calls cannot be compiled: the result x is an input itself"):
        compile_module(Calls(lambda m, x: (m.linear(x), x * 1)), (random(2, 3),))


def test_tracing_leaves_pytorchs_settings_as_they_were() -> None:
    with tracing():
        assert torch.fx.config.do_not_emit_stack_traces
    assert not torch.fx.config.do_not_emit_stack_traces
