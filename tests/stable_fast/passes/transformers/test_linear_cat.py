"""A linear layer takes two inputs instead of their copy, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast.passes import PASSES
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

LINEAR_CAT = "lightdiffusion.linear_cat"


class Joined(nn.Module):
    def __init__(self, dim: int = -1, *, bias: bool = True, adds: bool = False) -> None:
        super().__init__()
        self.dim, self.adds = dim, adds
        self.layer = nn.Linear(8 if dim == 1 else 16, 5, bias=bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        joined = self.layer(torch.cat((x, y), dim=self.dim))
        return joined + y[..., :5] if self.adds else joined


class ReadTwice(Joined):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        joined = torch.cat((x, y), dim=-1)
        return self.layer(joined) + joined.mean()


@pytest.mark.parametrize("module", [Joined(), Joined(2, bias=False)], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_two_inputs(module: nn.Module, dtype: torch.dtype) -> None:
    inputs = [random(2, 3, 8, seed=seed).to(dtype) for seed in range(2)]
    found, _ = fuse(module.to(dtype), inputs, PASSES, 1e-5 if dtype == torch.float32 else 2e-3)
    assert found == {LINEAR_CAT: 1}


@pytest.mark.parametrize("module", [Joined(1), Joined(adds=True), ReadTwice()], ids=["rows", "residual", "twice"])
def test_what_stays(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 8, seed=seed) for seed in range(2)], PASSES)
    assert LINEAR_CAT not in found and found["cat"] == 1
