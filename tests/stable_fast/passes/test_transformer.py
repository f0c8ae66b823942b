"""Passes over tokens: each fuses its pattern, keeps the result, and leaves look-alikes alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.models.attention import attention as model_attention
from modules.stable_fast.passes import attention, cleanup, geglu, layer_norm, linear_epilogue, packed_qkv
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
LINEAR = "lightdiffusion.linear_epilogue"
TOKENS = [random(2, 7, 8)]


class Geglu(nn.Module):
    def __init__(self, *, approximate: str = "none", swapped: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 12)
        self.approximate, self.swapped = approximate, swapped

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.linear(x).chunk(2, dim=-1)
        value, gate = (gate, value) if self.swapped else (value, gate)
        return F.gelu(gate, approximate=self.approximate) * value


def test_geglu() -> None:
    assert fuse(Geglu(), TOKENS, [CLEAN, geglu.PASS])[0] == {"lightdiffusion.linear_geglu": 1}


@pytest.mark.parametrize("module", [Geglu(approximate="tanh"), Geglu(swapped=True)])
def test_other_gates_stay(module: nn.Module) -> None:
    found, report = fuse(module, TOKENS, [CLEAN, geglu.PASS])
    assert not report.matches["geglu"] and found["gelu"] == 1


class Mlp(nn.Module):
    def __init__(self, activation: str) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16, bias=False), nn.Linear(16, 8)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        if self.activation == "quick_gelu":
            h = h * torch.sigmoid(1.702 * h)
        elif self.activation == "tanh":
            h = F.gelu(h, approximate="tanh")
        else:
            h = F.silu(h) if self.activation == "silu" else F.gelu(h)
        return x + self.down(h)


@pytest.mark.parametrize("activation", ["silu", "gelu", "quick_gelu"])
def test_linear_takes_in_activation_and_residual(activation: str) -> None:
    found, report = fuse(Mlp(activation), TOKENS, [CLEAN, linear_epilogue.PASS])
    assert found == {LINEAR: 2}
    kind = "quick_gelu" if activation == "quick_gelu" else "activation"
    assert report.matches["linear_epilogue"] == {"linear": 2, kind: 1, "residual": 1}


def test_tanh_gelu_stays() -> None:
    assert fuse(Mlp("tanh"), TOKENS, [CLEAN, linear_epilogue.PASS])[0] == {LINEAR: 2, "gelu": 1}


class Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        return self.linear(x) + position


def test_broadcasting_addition_stays() -> None:
    found, _ = fuse(Broadcast(), [*TOKENS, random(7, 8)], [CLEAN, linear_epilogue.PASS])
    assert found == {LINEAR: 1, "add.Tensor": 1}


class Norms(nn.Module):
    def __init__(self, shape: tuple[int, ...] = (8,), *, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape, elementwise_affine=affine)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        total = x + y
        return total, self.norm(total)


def test_layer_norm_with_the_addition_before_it() -> None:
    found, _ = fuse(Norms(), [*TOKENS, random(2, 7, 8, seed=1)], [CLEAN, layer_norm.PASS])
    assert found == {"lightdiffusion.add_layer_norm": 1, "getitem": 2}


def test_layer_norm_after_a_broadcasting_addition() -> None:
    found, _ = fuse(Norms(), [*TOKENS, random(8)], [CLEAN, layer_norm.PASS])
    assert found == {"lightdiffusion.layer_norm": 1, "add.Tensor": 1}


@pytest.mark.parametrize("module", [Norms((7, 8)), Norms(affine=False)])
def test_other_layer_norms_stay(module: nn.Module) -> None:
    assert fuse(module, [*TOKENS, random(2, 7, 8)], [CLEAN, layer_norm.PASS])[0]["layer_norm"] == 1


class Attention(nn.Module):
    """Self-attention, or cross-attention to a context of 6 channels; the options are what must not match."""

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
PACK = [CLEAN, packed_qkv.PASS, attention.PASS]


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
    """OpenCLIP's form: one projection, cut into three."""

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
