"""Norm and rotary embedding of queries become one operation, with the text before the picture or without."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

NORM_ROTARY = "lightdiffusion.rms_norm_rotary"


class Joint(nn.Module):
    """As Flux's attention in diffusers."""

    def __init__(self, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm, self.norm_added = nn.RMSNorm(8, eps=1e-6), nn.RMSNorm(8, eps=eps)

    def forward(self, x: Tensor, text: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q = torch.cat((self.norm_added(text), self.norm(x)), dim=1)
        turned: Tensor = apply_rotary_emb(q, (cos, sin), sequence_dim=1)  # pyright: ignore
        return turned


class Alone(Joint):
    def forward(self, x: Tensor, text: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned: Tensor = apply_rotary_emb(self.norm(x), (cos[4:], sin[4:]), sequence_dim=1)  # pyright: ignore
        return turned + text.mean()


def inputs(dtype: torch.dtype) -> list[Tensor]:
    heads = [random(2, length, 3, 8, seed=length).to(dtype) for length in (5, 4)]
    return [*heads, random(9, 8, seed=1), random(9, 8, seed=2)]


@pytest.mark.parametrize("module", [Joint(), Alone()], ids=["joint", "alone"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_one_operation(module: nn.Module, dtype: torch.dtype) -> None:
    found, _ = fuse(module.to(dtype), inputs(dtype), PASSES, 1e-5 if dtype == torch.float32 else 3e-3)
    assert found[NORM_ROTARY] == 1 and not {"lightdiffusion.rms_norm", "cat"} & set(found)


def test_different_epsilons_stay() -> None:
    found, _ = fuse(Joint(eps=1e-5), inputs(torch.float32), PASSES)
    assert NORM_ROTARY not in found and found["lightdiffusion.rms_norm"] == 2
