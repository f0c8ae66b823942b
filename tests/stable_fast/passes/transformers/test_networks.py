"""Whole networks of others lose most of their small kernels, in fp16 as well, at any size and with other weights."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, T5Config, T5EncoderModel

from modules.stable_fast import compile_module
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.graph.staging import STEP
from modules.stable_fast.passes import PASSES
from modules.stable_fast.runtime.weights import WeightStore
from tests.stable_fast.networks import operations, random, rel_error, run_program
from tests.stable_fast.pipelines.tiny_pipelines import randomised, text_encoder
from tests.stable_fast.pipelines.tiny_tail import flux_network

# Operations that move no data, and therefore start no kernel.
VIEWS = frozenset("reshape permute expand getitem chunk split_with_sizes squeeze.dim slice.Tensor select.int".split())
Call = dict[str, Any]


def tokens(batch: int, length: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 99, (batch, length), generator=torch.Generator().manual_seed(seed))


def flux(dtype: torch.dtype) -> tuple[nn.Module, Call]:
    call = {"hidden_states": random(2, 16, 16), "encoder_hidden_states": random(2, 7, 32), "img_ids": random(16, 3)}
    more = {"pooled_projections": random(2, 32), "timestep": torch.tensor([0.7, 0.3]), "txt_ids": torch.zeros(7, 3)}
    return flux_network(0).to(dtype), in_dtype({**call, **more, "return_dict": False}, dtype)


def t5(dtype: torch.dtype) -> tuple[nn.Module, Call]:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu")
    return randomised(T5EncoderModel(config)).to(dtype), {"input_ids": tokens(2, 9)}


def clip(dtype: torch.dtype) -> tuple[nn.Module, Call]:
    return text_encoder().to(dtype), {"input_ids": tokens(2, 77)}


def llama(*, layers: int = 2, attention: str = "sdpa") -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=attention,
    )
    return randomised(LlamaForCausalLM(config))


@torch.no_grad()
def llama_decode(dtype: torch.dtype) -> tuple[nn.Module, Call]:
    network, cache = llama().to(dtype), DynamicCache()
    network(input_ids=tokens(1, 5), cache=cache)
    return network, {"input_ids": tokens(1, 1), "cache": cache}


def kernels(found: Mapping[str, int]) -> Counter[str]:
    return Counter({name: count for name, count in found.items() if name not in VIEWS})


# Kernels left in a step of each network. A double and a single layer of Flux, two layers of the others. In fp16, Flux
# converts places and times on their way to sines.
LEFT = {"Flux": (flux, 75), "T5": (t5, 20), "CLIP": (clip, 22), "Llama decode": (llama_decode, 33)}
CONVERSIONS = {("Flux", torch.float16): 3}
IN_DTYPES = {torch.float32: 1e-5, torch.float16: 3e-3}


def in_dtype(call: Call, dtype: torch.dtype) -> Call:
    return {
        name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in call.items()
    }


@pytest.mark.parametrize("dtype", IN_DTYPES, ids=str)
@pytest.mark.parametrize("name", LEFT)
@torch.no_grad()
def test_what_is_left(name: str, dtype: torch.dtype) -> None:
    make, left = LEFT[name]
    network, call = make(dtype)
    program, _ = compile_program(WeightStore(network), copy.deepcopy(call), bindings={}, dims={}, passes=PASSES)
    found, expected = run_program(program, copy.deepcopy(call)), network(**copy.deepcopy(call))
    assert rel_error(found[0], expected[0]) < IN_DTYPES[dtype]
    ours = kernels(operations(program.stages[STEP].graph))
    assert ours.total() == left + CONVERSIONS.get((name, dtype), 0), ours
    assert not {"tanh", "gelu", "neg", "stack", "softmax.int", "rsqrt", "isinf", "clip", "clamp.Tensor"} & set(ours)


@torch.no_grad()
def test_sizes_by_name_and_other_weights_need_no_other_trace() -> None:
    network = llama(layers=1, attention="eager")
    call = {"input_ids": tokens(2, 7), "use_cache": False}
    fast = compile_module(network, call, dims={"input_ids": ("batch", "tokens")})
    for batch, length in ((2, 7), (3, 12), (1, 5)):
        call = {"input_ids": tokens(batch, length, seed=length), "use_cache": False}
        assert rel_error(fast(**call).logits, network(**call).logits) < 1e-5
    for parameter in network.parameters():
        parameter.mul_(1.1).add_(0.01)
    fast.refresh_weights()
    assert rel_error(fast(**call).logits, network(**call).logits) < 1e-5
    assert fast.report.counters.traces == 1 and fast.report.level == "fused"
