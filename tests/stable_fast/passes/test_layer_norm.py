"""LayerNorm and the addition before it become one operation where allowed, and look-alikes stay."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, layer_norm
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
TOKENS = [random(2, 7, 8)]


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
