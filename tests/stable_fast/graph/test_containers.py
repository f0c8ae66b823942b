"""Calls and results with dicts, objects and caches: as from the module itself, with names that a user recognises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module
from modules.stable_fast.graph.flatten import flatten_constants, flatten_inputs, paths_of, with_leaves
from tests.stable_fast.networks import rel_error

TOLERANCE = 1e-5


@dataclass
class Words:
    """A container that torch does not know: a tensor, a number and a flag."""

    text: Tensor
    scale: float = 2.0
    pooled: bool = False


class Cache:
    """A cache in the manner of transformers: a list of objects that hold tensors."""

    def __init__(self, *words: Words) -> None:
        self.layers = list(words)
        self.kind = Words


class Conditioned(nn.Module):
    """Takes conditions in a dict, as SDXL's UNet does, and returns an object."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.eval()

    def forward(self, x: Tensor, cond: dict[str, Any]) -> Words:
        return Words(self.linear(x) * cond["scale"] + cond["text"])


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.eval()

    def forward(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        layer = cache.layers[0]
        layer.text = torch.cat([layer.text, self.linear(x)], 1)
        return layer.text.sum(1) * layer.scale, cache


def test_every_value_has_a_flat_name_and_a_path() -> None:
    call = {
        "x": torch.ones(1),
        "cond": {"text-embeds": torch.ones(2), "ids": (torch.ones(3), 4)},
        "words": Words(torch.ones(5)),
    }
    assert {name: tensor.numel() for name, tensor in flatten_inputs(call).items()} == {
        "x": 1, "cond_text_embeds": 2, "cond_ids_0": 3, "words_text": 5,
    }  # fmt: skip
    assert (
        paths_of(call)["cond_text_embeds"] == "cond['text-embeds']" and paths_of(call)["words_scale"] == "words.scale"
    )
    assert flatten_constants(call)["cond_ids_1"] == 4 and flatten_constants(call)["words_scale"] == 2.0


def test_two_values_with_one_name_both_stay() -> None:
    tensors = flatten_inputs({"x": (torch.ones(1),), "x_0": torch.ones(2)})
    assert [tensor.numel() for tensor in tensors.values()] == [1, 2]


def test_values_can_be_replaced_inside_their_containers() -> None:
    cache = Cache(Words(torch.ones(1)))
    other = with_leaves({"cache": cache}, lambda name, value: value + 1 if name == "cache_layers_0_text" else value)[
        "cache"
    ]
    assert other.layers[0].text.item() == 2 and cache.layers[0].text.item() == 1 and other.kind is Words


@torch.no_grad()
def test_a_dict_in_a_call() -> None:
    module = Conditioned()
    dims = {"x": ("batch", None), "cond": {"text": ("batch", None)}}
    call = {"x": torch.randn(2, 4), "cond": {"text": torch.randn(2, 4), "scale": 1.0}}
    fast = compile_module(module, call, {"cond": "prompt"}, dims)
    for rows in (2, 3):
        call = {"x": torch.randn(rows, 4), "cond": {"text": torch.randn(rows, 4), "scale": 1.0}}
        result, expected = fast(**call), module(**call)
        assert type(result) is Words and rel_error(result.text, expected.text) < TOLERANCE
        assert (result.scale, result.pooled) == (expected.scale, expected.pooled)
    assert fast.report.counters.traces == 1


@torch.no_grad()
def test_a_number_in_a_dict_counts_as_a_number() -> None:
    module, x = Conditioned(), torch.randn(2, 4)
    fast = compile_module(module, {"x": x, "cond": {"text": x, "scale": 1.0}})
    for step in range(8):
        cond = {"text": x, "scale": step / 8}
        assert rel_error(fast(x, cond).text, module(x, cond).text) < TOLERANCE
    assert fast.report.counters.traces == 4 and "cond['scale'] is a number that changes" in fast.report.status_line()


@torch.no_grad()
def test_a_cache_in_a_call_and_in_its_result() -> None:
    module, x = Cached(), torch.randn(1, 1, 4)
    past = torch.randn(1, 3, 4)
    fast = compile_module(module, {"x": x, "cache": Cache(Words(past))})
    result, cache = fast(x, Cache(Words(past)))
    expected, own = module(x, Cache(Words(past)))
    assert rel_error(result, expected) < TOLERANCE and fast.report.level == "fused"
    assert rel_error(cache.layers[0].text, own.layers[0].text) < TOLERANCE and cache.kind is Words


def test_errors_name_the_argument_as_a_user_writes_it() -> None:
    call = {"x": torch.randn(2, 4), "cond": {"text": torch.randn(2, 4), "scale": 1.0}}
    with pytest.raises(ValueError, match=r"input cond\['text'\] has 2 dimensions, but dims gives it 1"):
        compile_module(Conditioned(), call, dims={"x": ("batch", None), "cond": {"text": ("batch",)}})
    with pytest.raises(ValueError, match="dims names 'cond_texts', which is not an input"):
        compile_module(Conditioned(), call, dims={"cond": {"texts": ("batch", None)}})
