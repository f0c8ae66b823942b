"""T5's clamp of infinities in fp16 becomes one operation with the norm after it, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLAMP, CLAMPED_NORM = "lightdiffusion.clamp_infinities", "lightdiffusion.clamped_rms_norm"
MOST = torch.finfo(torch.float16).max


class Clamped(nn.Module):
    """As T5 writes it."""

    def __init__(self, otherwise: float = MOST) -> None:
        super().__init__()
        self.otherwise = otherwise

    def forward(self, x: Tensor) -> Tensor:
        most = torch.where(torch.isinf(x).any(), MOST - 1000, self.otherwise)
        return torch.clamp(x, min=-most, max=most)


class WithNorm(nn.Module):
    """Returns the clamped values and their norm."""

    def __init__(self) -> None:
        super().__init__()
        self.clamped, self.norm = Clamped(), nn.RMSNorm(40, eps=1e-6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        clamped = self.clamped(x)
        return clamped, self.norm(clamped)


def values(*, infinite: bool) -> Tensor:
    x = random(2, 7, 40).half()
    x[0, 0, 0] = MOST
    if infinite:
        x[1, 2, 3] = float("-inf")
    return x


@pytest.mark.parametrize("infinite", [False, True])
def test_alone(infinite: bool) -> None:
    assert fuse(Clamped(), [values(infinite=infinite)], PASSES)[0] == {CLAMP: 1}


@pytest.mark.parametrize("infinite", [False, True])
def test_with_the_norm(infinite: bool) -> None:
    found, _ = fuse(WithNorm().half(), [values(infinite=infinite)], PASSES, tolerance=2e-3)
    assert found == {CLAMPED_NORM: 1, "getitem": 2}


def test_a_limit_for_finite_values_stays() -> None:
    found, _ = fuse(Clamped(2.0), [values(infinite=True)], PASSES)
    assert CLAMP not in found and found["clamp.Tensor"] == 1


def test_another_dtype_has_another_largest_number() -> None:
    found, _ = fuse(Clamped(), [values(infinite=True).float()], PASSES)
    assert CLAMP not in found
