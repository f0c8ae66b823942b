"""GroupNorm with SiLU becomes one operation where allowed, and look-alikes stay."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, group_norm_silu
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS


class Norm(nn.Module):
    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 6, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x))


def test_group_norm_silu() -> None:
    found, report = fuse(Norm(), [random(2, 6, 5, 3)], [CLEAN, group_norm_silu.PASS])
    assert found == {"lightdiffusion.group_norm_silu": 1}
    assert report.matches["group_norm_silu"] == {"group_norm": 1, "silu": 1}


def test_group_norm_without_weights_or_over_sequences_stays() -> None:
    assert "group_norm" in fuse(Norm(affine=False), [random(2, 6, 5, 3)], [CLEAN, group_norm_silu.PASS])[0]
    assert "group_norm" in fuse(Norm(), [random(2, 6, 5)], [CLEAN, group_norm_silu.PASS])[0]


class NormReadTwice(Norm):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return F.silu(y) * y


def test_group_norm_read_twice_keeps_its_own_result() -> None:
    found, report = fuse(NormReadTwice(), [random(2, 6, 5, 3)], [CLEAN, group_norm_silu.PASS])
    assert report.matches["group_norm_silu"] == {"group_norm": 1} and found["silu"] == 1
