"""A concatenation disappears if all its users accept two halves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, concat, group_norm_silu
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS


class Cat(nn.Module):
    def __init__(self, *, dim: int = 1, read: bool = False) -> None:
        super().__init__()
        self.norm, self.skip = nn.GroupNorm(3, 12), nn.Conv2d(12, 4, 1)
        self.dim, self.read = dim, read

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        x = torch.cat([a, b], self.dim)
        results = (F.silu(self.norm(x)), self.skip(x))
        return (*results, x * 2) if self.read else results


def test_concatenation_is_never_made() -> None:
    inputs = [random(2, 7, 4, 3), random(2, 5, 4, 3, seed=1)]
    found, _ = fuse(Cat(), inputs, [CLEAN, group_norm_silu.PASS, concat.PASS])
    assert found == {"lightdiffusion.group_norm_silu_cat": 1, "lightdiffusion.conv2d_cat_epilogue": 1}


def test_concatenation_that_something_else_reads_is_made() -> None:
    inputs = [random(2, 7, 4, 3), random(2, 5, 4, 3, seed=1)]
    found, report = fuse(Cat(read=True), inputs, [CLEAN, group_norm_silu.PASS, concat.PASS])
    assert found["cat"] == 1 and not report.matches["concat"]


def test_concatenation_along_height_is_made() -> None:
    inputs = [random(2, 12, 4, 3), random(2, 12, 5, 3, seed=1)]
    assert fuse(Cat(dim=2), inputs, [CLEAN, group_norm_silu.PASS, concat.PASS])[0]["cat"] == 1
