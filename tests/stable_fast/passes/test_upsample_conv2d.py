"""Upsampling by two and the convolution after it become one operation where allowed, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, upsample_conv2d
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS


class Up(nn.Module):
    def __init__(self, scale: float = 2.0, kernel: int = 3, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, kernel, padding=kernel // 2)
        self.scale, self.size = (None if size else scale), size

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, size=self.size, scale_factor=self.scale, mode="nearest"))


@pytest.mark.parametrize("module", [Up(), Up(size=(10, 6))])
def test_upsampling_by_two(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 5, 3)], [CLEAN, upsample_conv2d.PASS])
    assert found == {"lightdiffusion.upsample_conv2d": 1}


@pytest.mark.parametrize("module", [Up(3.0), Up(kernel=5), Up(size=(9, 6))])
def test_other_upsampling_stays(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 5, 3)], [CLEAN, upsample_conv2d.PASS])
    assert found == {"upsample_nearest2d.vec": 1, "conv2d": 1}
