"""What other people's networks bring along: largest sizes, many sizes, offload hooks, pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import TraceError, compile_module
from modules.stable_fast.config import StableFastConfig
from tests.stable_fast.networks import rel_error


class Positions(nn.Module):
    """Refuses more than 77 positions, as CLIP does."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(77, 8)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 77:
            raise ValueError("at most 77 positions")
        return x + self.embedding.weight[: x.shape[1]]


class Joint(nn.Module):
    """Joins two inputs, so that a size is a sum of them and, with `more`, of twice the text and one row."""

    def __init__(self, *, more: bool = False) -> None:
        super().__init__()
        self.more = more

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        joined = torch.cat([text, image, *((text, text, image[:, :1]) if self.more else ())], 1)
        split = joined.reshape(joined.shape[0], joined.shape[1], 2, 4).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(split, split, split)
        return mixed.transpose(1, 2).flatten(2)[:, text.shape[1] :]


@torch.no_grad()
def test_a_size_with_a_maximum_can_be_named() -> None:
    module = Positions()
    fast = compile_module(module, {"x": torch.randn(2, 7, 8)}, dims={"x": ("batch", "tokens", None)})
    for shape in ((2, 7, 8), (3, 77, 8), (1, 1, 8)):
        x = torch.randn(shape)
        assert rel_error(fast(x), module(x)) < 1e-5
    assert fast.report.counters.traces == 1 and fast.report.level == "fused"


@torch.no_grad()
def test_sums_of_named_sizes_need_no_other_trace() -> None:
    module = Joint().eval()
    dims = {"image": ("batch", "area", None), "text": ("batch", "tokens", None)}
    fast = compile_module(module, {"image": torch.randn(2, 16, 8), "text": torch.randn(2, 7, 8)}, dims=dims)
    for batch, area, tokens in ((2, 16, 7), (3, 16, 7), (1, 9, 5), (5, 4, 11)):
        call = {"image": torch.randn(batch, area, 8), "text": torch.randn(batch, tokens, 8)}
        assert rel_error(fast(**call), module(**call)) < 1e-5
    assert fast.report.counters.traces == 1 and fast.report.level == "fused"


@torch.no_grad()
def test_a_name_that_does_not_hold_is_dropped_alone(caplog: pytest.LogCaptureFixture) -> None:
    module = Joint(more=True).eval()  # a sum that is not recognised
    dims = {"image": ("batch", "area", None), "text": ("batch", "tokens", None)}
    fast = compile_module(module, {"image": torch.randn(2, 16, 8), "text": torch.randn(2, 7, 8)}, dims=dims)
    for batch, tokens in ((2, 7), (3, 7), (1, 9), (5, 4)):
        call = {"image": torch.randn(batch, 16, 8), "text": torch.randn(batch, tokens, 8)}
        assert rel_error(fast(**call), module(**call)) < 1e-5
    assert fast.report.counters.traces == 2 and fast.report.level == "fused"
    assert "traces Joint anew for each size of area" in caplog.text


class CountsRows(nn.Module):
    """Computes with the number of its rows, so that only the other sizes may change."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) * (3 if len(x) > 2 else 2)


@torch.no_grad()
def test_the_batch_is_dropped_alone_if_nothing_else_has_changed() -> None:
    module = CountsRows().eval()
    fast = compile_module(module, {"x": torch.randn(4, 4)}, dims={"x": ("batch", "n")})
    for shape, traces in (((4, 4), 1), ((4, 5), 1), ((2, 5), 2), ((2, 6), 2), ((1, 6), 3)):
        x = torch.randn(shape)
        assert rel_error(fast(x), module(x)) < 1e-5
        assert fast.report.counters.traces == traces


class Remembers(nn.Module):
    """Leaves something in a list that it is given, as the causal convolutions of video autoencoders do."""

    def forward(self, x: Tensor, memory: list[Tensor | None]) -> Tensor:
        before, memory[0] = memory[0], x * 2
        return x * 3 if before is None else x + before


def test_a_network_that_changes_a_list_it_is_given_is_refused() -> None:
    with pytest.raises(TraceError, match="it changes its input memory"):
        compile_module(Remembers().eval(), {"x": torch.randn(2, 4), "memory": [None]})


class Appends(nn.Module):
    """Lengthens a list of keys and returns it, as language models do with their caches."""

    def forward(self, x: Tensor, keys: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        keys[0] = torch.cat([keys[0], x], 1)
        return keys[0].sum(1), keys


@torch.no_grad()
def test_a_list_that_comes_back_with_the_result_stays_as_it_is() -> None:
    module = Appends().eval()
    call = {"x": torch.randn(2, 1, 4), "keys": [torch.randn(2, 3, 4)]}
    fast = compile_module(module, call, dims={"x": ("batch", None, None), "keys": (("batch", "past", None),)})
    for past in (3, 5, 5):
        x, keys = torch.randn(2, 1, 4), [torch.randn(2, past, 4)]
        total, longer = fast(x, keys)
        assert keys[0].shape[1] == past and longer[0].shape[1] == past + 1  # in the first call of a size too
        assert rel_error(total, module(x, list(keys))[0]) < 1e-5


def another_parameter(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight * 2)


def other_data(layer: nn.Linear) -> None:
    layer.weight.data = layer.weight.data * 2


@torch.no_grad()
@pytest.mark.parametrize("rebind", [another_parameter, other_data])
def test_rebound_weights_are_seen_without_being_told(rebind: Callable[[nn.Linear], None]) -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    module = nn.Sequential(layer, nn.SiLU()).eval()
    fast = compile_module(module, {"input": x})
    before = fast(x)
    for _ in range(2):
        rebind(layer)
        assert rel_error(fast(x), module(x)) < 1e-5 and rel_error(fast(x), before) > 0.1


@torch.no_grad()
def test_programs_for_sizes_without_names_are_bounded() -> None:
    module = nn.Linear(4, 4).eval()
    fast = compile_module(module, {"input": torch.randn(1, 4)})
    most = StableFastConfig().max_shapes
    for rows in (*range(1, most + 3), 1):
        x = torch.randn(rows, 4)
        assert rel_error(fast(x), module(x)) < 1e-5
    assert fast.report.counters.traces == most + 3  # the first was dropped, and traced again


@torch.no_grad()
def test_pickles_and_copies_are_of_the_module_itself() -> None:
    module, x = nn.Linear(4, 4).eval(), torch.randn(2, 4)
    fast = compile_module(module, {"input": x})
    for other in (pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast)):
        assert type(other) is nn.Linear and other is not module and torch.equal(other(x), module(x))


@torch.no_grad()
def test_a_network_under_offload_hooks_runs_eagerly_and_says_so() -> None:
    module, x = nn.Sequential(nn.Linear(4, 4)).eval(), torch.randn(2, 4)
    fast = compile_module(module, {"input": x})
    module[0]._hf_hook = object()
    fast.refresh_weights()
    assert torch.equal(fast(x), module(x))
    assert "hooks that move its weights" in fast.report.status_line()
    with pytest.raises(TraceError, match="offload"):
        compile_module(module, {"input": x})
