"""Adaptive LayerNorm and gates of diffusion transformers become one operation each."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero
from torch import Tensor, nn

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = AdaLayerNormZero(8), nn.Linear(8, 8)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        normed, gate, *_ = self.norm(x, emb=emb)
        return x + gate.unsqueeze(1) * self.linear(normed)


class Clipped(Block):
    """As Flux clips what it adds in fp16."""

    def __init__(self, least: float = -0.5) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return super().forward(x, emb).clip(self.least, 0.5)


class LastNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = AdaLayerNormContinuous(8, 8, elementwise_affine=False)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.norm(x, emb)


class OfTokens(nn.Module):
    """Has vectors of each token instead of each sample."""

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x + torch.nn.functional.layer_norm(x, (8,)) * (1 + scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_a_block_of_a_transformer(dtype: torch.dtype) -> None:
    inputs = [random(2, 7, 8).to(dtype), random(2, 8, seed=1).to(dtype)]
    found, _ = fuse(Block().to(dtype), inputs, PASSES, tolerance=1e-5 if dtype is torch.float32 else 4e-3)
    assert found["lightdiffusion.modulated_layer_norm"] == found["lightdiffusion.gated_add"] == 1
    assert not {"layer_norm", "mul.Tensor", "add.Tensor"} & set(found)


def test_a_gate_that_is_clipped() -> None:
    inputs = [random(2, 7, 8), random(2, 8, seed=1)]
    found, _ = fuse(Clipped(), inputs, PASSES)
    assert found["lightdiffusion.gated_add"] == 1 and "clip" not in found
    assert fuse(Clipped(-0.2), inputs, PASSES)[0]["clip"] == 1


def test_the_last_norm() -> None:
    found, _ = fuse(LastNorm(), [random(2, 7, 8), random(2, 8, seed=1)], PASSES)
    assert found["lightdiffusion.modulated_layer_norm"] == 1 and "layer_norm" not in found


def test_vectors_of_tokens_stay() -> None:
    found, _ = fuse(OfTokens(), [random(2, 7, 8), random(2, 7, 8, seed=1)], PASSES)
    assert found["layer_norm"] == 1
