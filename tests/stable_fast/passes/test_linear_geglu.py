"""GEGLU with its linear layer becomes one operation where allowed, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, linear_geglu
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
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
    assert fuse(Geglu(), TOKENS, [CLEAN, linear_geglu.PASS])[0] == {"lightdiffusion.linear_geglu": 1}


@pytest.mark.parametrize("module", [Geglu(approximate="tanh"), Geglu(swapped=True)])
def test_other_gates_stay(module: nn.Module) -> None:
    found, report = fuse(module, TOKENS, [CLEAN, linear_geglu.PASS])
    assert not report.matches["linear_geglu"] and found["gelu"] == 1
