"""GELU's tanh approximation written out becomes one operation, or part of one, and look-alikes stay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.activations import AccurateGELUActivation, NewGELUActivation
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

GELUS = [NewGELUActivation(), AccurateGELUActivation()]
T5 = T5Config(d_model=8, d_ff=16, feed_forward_proj="gated-gelu")


class OtherSlope(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x, 3.0))))


class OfTwo(nn.Module):
    """Multiplies the curve of one value by another."""

    def forward(self, x: Tensor) -> Tensor:
        y = 2 * x
        return 0.5 * y * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class ReadTwice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        curve = torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))
        return 0.5 * x * (1.0 + curve), curve


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("module", GELUS, ids=lambda module: type(module).__name__)
def test_each_form_is_one_operation(module: nn.Module, dtype: torch.dtype) -> None:
    found, _ = fuse(module, [random(2, 7, 8).to(dtype)], PASSES, tolerance=1e-5 if dtype is torch.float32 else 2e-3)
    assert found == {"gelu": 1}


def test_the_gate_of_t5() -> None:
    found, _ = fuse(T5DenseGatedActDense(T5).eval(), [random(2, 7, 8)], PASSES)
    assert found == {"lightdiffusion.linear_epilogue": 3, "lightdiffusion.gated_activation": 1}


@pytest.mark.parametrize("module", [OtherSlope(), OfTwo(), ReadTwice()], ids=lambda module: type(module).__name__)
def test_look_alikes_stay(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 7, 8)], PASSES)
    assert found["tanh"] == 1 and "gelu" not in found
