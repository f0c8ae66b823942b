"""SwiGLU's product becomes one operation, in front of which the linear layers stay plain."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse


class SwiGLU(nn.Module):
    """As in Llama: two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Halves(nn.Module):
    """As in Lumina and SAM: two halves of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, dim=-1)
        return F.silu(gate) * value


class Twice(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        activated = F.silu(x)
        return activated * y, activated


@pytest.mark.parametrize("module", [SwiGLU(), Halves()], ids=["two layers", "halves"])
def test_silu_and_its_product(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 7, 8)], PASSES)
    assert found["lightdiffusion.gated_activation"] == 1 and not {"silu", "mul.Tensor"} & set(found)


def test_an_activation_with_another_reader_stays() -> None:
    found, _ = fuse(Twice(), [random(2, 7, 8), random(2, 7, 8, seed=1)], PASSES)
    assert found["silu"] == 1
