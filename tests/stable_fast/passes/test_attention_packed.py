"""Attention over packed projections becomes one operation: the passes packed_qkv and attention_packed together."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from modules.models.attention import attention as model_attention
from modules.stable_fast.passes import attention_packed, cleanup, packed_qkv
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
TOKENS = [random(2, 7, 8)]


class Attention(nn.Module):
    """Self-attention, or cross-attention to a context of 6 channels. With an option set, the pass must not match."""

    def __init__(
        self,
        context: int = 8,
        *,
        causal: bool = False,
        bias: str = "none",
        scale: float | None = None,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8, bias=bias != "none")
        self.k = nn.Linear(context, 8, bias=bias == "all")
        self.v = nn.Linear(context, 8, bias=bias != "none")
        self.causal, self.scale, self.upcast = causal, scale, upcast

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        source = x if self.k.in_features == 8 else context
        q, k, v = self.q(x), self.k(source), self.v(source)
        if self.scale is None:
            return model_attention(q, k, v, heads=2, causal=self.causal, upcast=self.upcast)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2).flatten(2)


INPUTS = [*TOKENS, random(2, 5, 6, seed=1)]
PACK = [CLEAN, packed_qkv.PASS, attention_packed.PASS]


@pytest.mark.parametrize("bias", ["none", "all"])
def test_self_attention_is_packed(bias: str) -> None:
    found, _ = fuse(Attention(bias=bias), INPUTS, PACK)
    assert found == {"linear": 1, "lightdiffusion.attention_packed_qkv": 1}


@pytest.mark.parametrize("bias", ["none", "all"])
def test_cross_attention_packs_keys_and_values(bias: str) -> None:
    found, _ = fuse(Attention(6, bias=bias), INPUTS, PACK)
    assert found == {"linear": 2, "lightdiffusion.attention_packed_kv": 1}


@pytest.mark.parametrize("module", [Attention(causal=True), Attention(scale=0.3)])
def test_attention_with_a_mask_or_another_scale_stays(module: nn.Module) -> None:
    assert fuse(module, INPUTS, PACK)[0]["scaled_dot_product_attention"] == 1


def test_projections_with_mixed_biases_stay() -> None:
    found, report = fuse(Attention(bias="mixed"), INPUTS, PACK)
    assert found["linear"] == 3 and not report.matches["packed_qkv"]


def test_conversions_to_fp32_around_attention_go_with_it() -> None:
    half = [tensor.half() for tensor in INPUTS]
    found, _ = fuse(Attention(upcast=True).half(), half, PACK, tolerance=1e-3)
    assert found == {"linear": 1, "lightdiffusion.attention_packed_qkv": 1}


class PackedProjection(nn.Module):
    """One projection that is cut into three, as in OpenCLIP."""

    def __init__(self, order: tuple[int, int, int] = (0, 1, 2)) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 24)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        parts = self.linear(x).chunk(3, dim=-1)
        return model_attention(*(parts[index] for index in self.order), heads=2)


def test_a_projection_that_is_packed_already_is_used_as_it_is() -> None:
    assert fuse(PackedProjection(), TOKENS, PACK)[0] == {"linear": 1, "lightdiffusion.attention_packed_qkv": 1}


def test_parts_in_another_order_stay() -> None:
    assert fuse(PackedProjection((1, 0, 2)), TOKENS, PACK)[0]["scaled_dot_product_attention"] == 1
