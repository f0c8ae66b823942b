"""Attention written out becomes the library's, with its mask and scale, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.clip.modeling_clip import eager_attention_forward as clip_attention
from transformers.models.t5.modeling_t5 import T5Attention

from modules.stable_fast.passes import LEAN_PASSES, PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

SDPA = "scaled_dot_product_attention"
HEADS = "lightdiffusion.attention_heads"
IN_DTYPES = {torch.float32: 1e-5, torch.float16: 4e-3}


class Clip(nn.Module):
    """transformers' own function, with a causal mask or none."""

    def __init__(self, scale: float = 0.3) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.scale = scale
        self.eval()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return clip_attention(self, q, k, v, mask, self.scale)[0].flatten(2)


class OldT5(nn.Module):
    """As T5 was written before it had a choice of attention: no scale, and a bias of positions."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        scores = torch.matmul(q, k.transpose(3, 2))
        scores += bias
        weights = nn.functional.softmax(scores.float(), dim=-1).type_as(scores)
        return torch.matmul(weights, v)


class Divided(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) / 2.0).softmax(-1) @ v


class ReadTwice(nn.Module):
    """Returns its weights as well."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        return weights @ v, weights


class OverQueries(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2)).softmax(-2) @ v


class MaskScaled(nn.Module):
    """Scales the mask too."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((q @ k.transpose(-1, -2) + v[..., :1]) * 0.5).softmax(-1) @ v


def causal(length: int) -> Tensor:
    return torch.full((1, 1, length, length), torch.finfo(torch.float16).min).triu(1)


@pytest.mark.parametrize("dtype", IN_DTYPES, ids=str)
def test_clip_with_its_causal_mask(dtype: torch.dtype) -> None:
    found, _ = fuse(Clip().to(dtype), [random(2, 7, 8).to(dtype), causal(7).to(dtype)], PASSES, IN_DTYPES[dtype])
    assert found[HEADS] == found["lightdiffusion.linear_epilogue"] == 1  # q, k and v are one product
    assert not {"matmul", "softmax.int", "mul.Tensor", "add.Tensor"} & set(found)


def test_short_of_memory_the_projections_of_masked_attention_stay_apart() -> None:
    found, _ = fuse(Clip(), [random(2, 7, 8), causal(7)], LEAN_PASSES)
    assert found["lightdiffusion.linear_epilogue"] == 3


def test_attention_without_mask_at_the_usual_scale_is_packed() -> None:
    found, _ = fuse(Clip(scale=0.5), [random(2, 7, 8)], PASSES)
    assert found == {"lightdiffusion.linear_epilogue": 1, "lightdiffusion.attention_packed_qkv": 1}


@pytest.mark.parametrize("dtype", IN_DTYPES, ids=str)
def test_t5_with_its_position_bias(dtype: torch.dtype) -> None:
    heads = [random(2, 3, length, 8, seed=length).to(dtype) for length in (7, 9, 9)]
    found, _ = fuse(OldT5(), [*heads, random(1, 3, 7, 9).to(dtype)], PASSES, IN_DTYPES[dtype])
    assert found == {SDPA: 1}


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_t5_of_today(kind: str) -> None:
    config = T5Config(d_model=8, d_kv=4, num_heads=2, attn_implementation=kind)
    module = T5Attention(config, has_relative_attention_bias=True).eval()

    class Result(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = module

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x)[0]

    found, _ = fuse(Result(), [random(2, 7, 8)], PASSES)
    assert found[HEADS] == 1 and found["lightdiffusion.linear_epilogue"] == 2 and "softmax.int" not in found


def test_a_divided_product() -> None:
    found, _ = fuse(Divided(), [random(2, 3, length, 4, seed=length) for length in (7, 9, 9)], PASSES)
    assert found == {SDPA: 1}


@pytest.mark.parametrize("module", [ReadTwice(), OverQueries(), MaskScaled()], ids=lambda module: type(module).__name__)
def test_look_alikes_stay(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 7, 4, seed=seed) for seed in range(3)], PASSES)
    assert SDPA not in found and found["softmax.int"] == 1


def test_a_mask_of_another_dtype_stays() -> None:
    heads = [random(2, 3, 7, 8, seed=seed).half() for seed in range(3)]
    found, _ = fuse(OldT5(), [*heads, random(1, 3, 7, 7)], PASSES, tolerance=4e-3)
    assert SDPA not in found
