"""Attention that is not packed goes to the operation on heads, with its bias, scale and causal mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

HEADS, BIAS, SDPA = "lightdiffusion.attention_heads", "lightdiffusion.attention_bias", "scaled_dot_product_attention"


class Attention(nn.Module):
    """As diffusers writes it, on heads that other operations have changed."""

    def __init__(self, *, merges: bool = True, **options: Any) -> None:
        super().__init__()
        self.merges, self.options = merges, options

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)
        return y.transpose(1, 2).flatten(2) if self.merges else y


class Twice(nn.Module):
    """Two layers with one position bias, laid out as an embedding leaves it."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, places: Tensor) -> Tensor:
        bias = places.permute(2, 0, 1).unsqueeze(0)
        first = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        again = F.scaled_dot_product_attention(first, k, v, attn_mask=bias, scale=1.0)
        return first.transpose(1, 2).flatten(2) + again.transpose(1, 2).flatten(2)


def heads(length: int = 7, keys: int = 9, *, of_keys: int = 3) -> list[Tensor]:
    return [random(2, 3, length, 8), random(2, of_keys, keys, 8, seed=1), random(2, of_keys, keys, 8, seed=2)]


@pytest.mark.parametrize("options", [{}, {"scale": 0.4}, {"is_causal": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_without_a_mask(options: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = [x.to(dtype) for x in heads(9)]
    found, _ = fuse(Attention(**options), inputs, PASSES, 1e-5 if dtype == torch.float32 else 2e-3)
    assert found == {HEADS: 1}


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 1, 7, 9), (2, 1, 1, 9), (7, 9)], ids=str)
def test_a_mask_of_numbers(shape: tuple[int, ...]) -> None:
    found, _ = fuse(Attention(), [*heads(), random(*shape)], PASSES)
    assert found == {HEADS: 1, BIAS: 1}


def test_layers_share_a_bias() -> None:
    found, _ = fuse(Twice(), [*heads(9), random(9, 9, 3)], PASSES)
    assert found[BIAS] == 1 and found[HEADS] + found.get(SDPA, 0) == 2


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Attention(), [*heads(), random(2, 1, 7, 9) > 0]),
        (Attention(enable_gqa=True), heads(of_keys=1)),
        (Attention(merges=False), heads()),
    ],
    ids=["booleans", "grouped", "apart"],
)
def test_what_stays(module: nn.Module, inputs: list[Tensor]) -> None:
    found, _ = fuse(module, inputs, PASSES)
    assert HEADS not in found and found[SDPA] == 1
