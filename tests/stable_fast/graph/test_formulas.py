"""Sums of named sizes are recognised from traces with other primes, and give PyTorch's own results at other sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module, fuse
from modules.stable_fast.compiled_module import CompiledModule
from modules.stable_fast.graph import trace
from modules.stable_fast.graph.formulas import solve
from modules.stable_fast.graph.serialize import decode_graph, encode_graph
from modules.stable_fast.graph.sizes import SizeError, Sizes, value_of
from tests.stable_fast.families.transformers_of_pictures import NETWORKS
from tests.stable_fast.families.trial import difference

PRIMES = [{"batch": 101, "height": 103, "width": 107}, {"batch": 109, "height": 113, "width": 131}]
PRIMES.append({"batch": 139, "height": 149, "width": 151})
ACTUAL = {"batch": 2, "height": 6, "width": 5}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("height + width", 11),
        ("height * width + batch", 32),
        ("height * width + 1", 31),
        ("batch * (height + width)", 22),
        ("2 * height + 77", 89),
        ("(193 - height) // 2", None),
        ("96 - height", 90),
        ("height * width + batch + 8", 40),
    ],
)
def test_a_sum_is_found_from_its_values(expression: str, expected: int | None) -> None:
    values = [eval(expression, {}, primes) for primes in PRIMES]
    formula = solve(values, PRIMES)
    assert formula is not None
    if expected is None:
        with pytest.raises(SizeError, match="not a whole number"):
            value_of(formula, ACTUAL)
    else:
        assert value_of(formula, ACTUAL) == expected
        assert Sizes(PRIMES[0], {values[0]: formula}).replace(values[0], ACTUAL) == expected


def test_values_without_a_formula_have_none() -> None:
    assert solve([1009, 1013, 1733], PRIMES) is None


class Joint(nn.Module):
    """Attention over tokens of a prompt and the pixels of a picture together, behind one learned token."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        both = torch.cat([prompt, x.flatten(2).transpose(1, 2)], 1)
        both = both.reshape(batch, prompt.shape[1] + height * width, 2, 4).transpose(1, 2)
        both = nn.functional.scaled_dot_product_attention(both, both, both).transpose(1, 2).reshape(batch, -1, 8)
        result = torch.cat([self.first.expand(batch, 1, 8), both[:, prompt.shape[1] :]], 1)
        return self.mix(result).reshape(batch * (height * width + 1), 8)


DIMS = {"x": ("batch", None, "height", "width"), "prompt": ("batch", "tokens", None)}


@torch.no_grad()
def test_one_trace_serves_sums_of_sizes() -> None:
    torch.manual_seed(1)
    module = Joint().eval()
    fast = CompiledModule(module, dims=DIMS)
    for batch, height, width, tokens in ((2, 4, 4, 7), (1, 6, 4, 9), (3, 2, 5, 77)):
        x, prompt = torch.randn(batch, 8, height, width), torch.randn(batch, tokens, 8)
        assert torch.allclose(fast(x, prompt), module(x, prompt), atol=1e-5)
    assert fast.report.counters.traces == 1


class Side(nn.Module):
    """Tokens and patches side by side. `unlike`: a literal that looks like a sum by accident."""

    def __init__(self, unlike: int = 0) -> None:
        super().__init__()
        self.mix, self.unlike = nn.Linear(8, 8), unlike

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        both = self.mix(torch.cat([prompt, x], 1).reshape(-1, prompt.shape[1] + x.shape[1], 8))
        if self.unlike:
            both = torch.cat([both, both.new_zeros(both.shape[0], self.unlike, 8)], 1)
        return both[:, prompt.shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize(("unlike", "traces"), [(0, 1), (101 + 103, 3)])
def test_a_sum_is_guessed_from_one_trace_if_that_holds(
    unlike: int, traces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    own = trace._trace

    def count(*arguments: Any) -> object:
        made.append(own(*arguments))
        return made[-1]

    monkeypatch.setattr(trace, "_trace", count)
    module = Side(unlike).eval()
    fast = CompiledModule(module, dims={"x": ("batch", "patches", None), "prompt": ("batch", "tokens", None)})
    for batch, patches, tokens in ((2, 6, 7), (1, 5, 9), (3, 101, 103)):
        x, prompt = torch.randn(batch, patches, 8), torch.randn(batch, tokens, 8)
        assert torch.allclose(fast(x, prompt), module(x, prompt), atol=1e-5)
    assert len(made) == traces and fast.report.counters.traces == 1


def test_formulas_come_back_from_json_as_they_were() -> None:
    call = {"x": torch.randn(2, 8, 4, 4), "prompt": torch.randn(2, 7, 8)}
    fused = fuse.fuse(Joint().eval(), call, {}, DIMS, ())
    found = decode_graph(json.loads(json.dumps(encode_graph(fused))))
    assert found.traced.sizes == fused.traced.sizes and len(found.traced.sizes.formulas) > 1
    literal = next(iter(found.traced.sizes.formulas))
    actual = {"batch": 3, "height": 2, "width": 5, "tokens": 77}
    assert found.traced.sizes.replace(literal, actual) == fused.traced.sizes.replace(literal, actual)


@torch.no_grad()
@pytest.mark.own_cache
def test_a_kept_graph_gives_sums_at_other_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flux joins patches and tokens. The second time, its graph comes from disk."""
    network = NETWORKS["Flux"]
    module = network.make()
    compile_module(module, network.at(), dims=network.dims)

    def refuse(*arguments: object) -> None:
        raise AssertionError("traced although the graph is on disk")

    monkeypatch.setattr(fuse, "trace", refuse)
    fast = compile_module(module, network.at(), dims=network.dims)
    for others in ({}, {"batch": 3}, {"patches": 20, "tokens": 12}):
        assert difference(fast(**network.at(**others)), module(**network.at(**others))) < 1e-4
    (report,) = fast.report.programs
    assert report.from_disk and fast.report.counters.traces == 1
