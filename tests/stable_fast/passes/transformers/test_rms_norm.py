"""RMSNorm as others write it becomes one operation, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

NORMS = {
    "T5": T5LayerNorm(8),
    "Llama": LlamaRMSNorm(8),
    "diffusers": RMSNorm(8, 1e-6),
    "torch": nn.RMSNorm(8, eps=1e-6),
    "without weight": RMSNorm(8, 1e-6, elementwise_affine=False),
}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = LlamaRMSNorm(8)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        total = x + y
        return total, self.norm(total)


class TwoReaders(nn.Module):
    """Uses the root twice, so nothing is saved."""

    def forward(self, x: Tensor) -> Tensor:
        root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * root + root


class OverRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-2, keepdim=True) + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_each_form_is_one_operation(norm: nn.Module, dtype: torch.dtype) -> None:
    x = random(2, 7, 8).to(dtype)
    found, _ = fuse(norm.to(dtype), [x], PASSES, tolerance=1e-5 if dtype is torch.float32 else 2e-3)
    assert found == {"lightdiffusion.rms_norm": 1}


def test_the_addition_before_it() -> None:
    found, _ = fuse(Residual(), [random(2, 7, 8), random(2, 7, 8, seed=1)], PASSES)
    assert found == {"lightdiffusion.add_rms_norm": 1, "getitem": 2}


@pytest.mark.parametrize("module", [TwoReaders(), OverRows()], ids=["two readers", "over rows"])
def test_look_alikes_stay(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 7, 8)], PASSES)
    assert found["rsqrt"] == 1 and "lightdiffusion.rms_norm" not in found
