"""Moves between feature map and tokens become views, and other permutations stay."""

from __future__ import annotations

from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, tokens
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS


class Pointwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.linear, self.outside = nn.Conv2d(6, 8, 1), nn.Linear(8, 8), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        y = self.linear(self.inside(x).permute(0, 2, 3, 1).reshape(batch, height * width, 8))
        return x + self.outside(y.transpose(1, 2).reshape(batch, 8, height, width))


def test_pointwise_convolutions_and_moves_become_linear_layers_and_views() -> None:
    found, _ = fuse(Pointwise(), [random(2, 6, 5, 3)], [CLEAN, tokens.PASS])
    assert found == {"linear": 3, "add.Tensor": 1, "as_tokens": 1, "as_image": 1}


class OtherPermutation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.permute(0, 3, 2, 1).reshape(batch, height * width, channels)


def test_other_permutations_stay() -> None:
    found, _ = fuse(OtherPermutation(), [random(2, 6, 5, 3)], [CLEAN, tokens.PASS])
    assert found == {"permute": 1, "reshape": 1}
