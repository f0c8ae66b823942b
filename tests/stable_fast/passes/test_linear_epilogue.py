"""A linear layer and its epilogue become one operation where allowed, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, linear_epilogue
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
LINEAR = "lightdiffusion.linear_epilogue"
TOKENS = [random(2, 7, 8)]


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


@pytest.mark.parametrize("activation", ["silu", "gelu", "tanh", "quick_gelu"])
def test_linear_takes_in_activation_and_residual(activation: str) -> None:
    found, report = fuse(Mlp(activation), TOKENS, [CLEAN, linear_epilogue.PASS])
    assert found == {LINEAR: 2}
    kind = "quick_gelu" if activation == "quick_gelu" else "activation"
    assert report.matches["linear_epilogue"] == {"linear": 2, kind: 1, "residual": 1}


class Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        return self.linear(x) + position


def test_broadcasting_addition_stays() -> None:
    found, _ = fuse(Broadcast(), [*TOKENS, random(7, 8)], [CLEAN, linear_epilogue.PASS])
    assert found == {LINEAR: 1, "add.Tensor": 1}
