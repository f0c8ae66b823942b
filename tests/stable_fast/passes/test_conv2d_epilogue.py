"""A convolution and additions to its result become one operation where allowed, and look-alikes stay."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, conv2d_epilogue, tokens
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
CONV = "lightdiffusion.conv2d_epilogue"


class ConvEpilogue(nn.Module):
    def __init__(self, **options: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, **options)

    def forward(self, x: Tensor, vector: Tensor, residual: Tensor) -> Tensor:
        return F.silu(residual + (self.conv(x) + vector[:, :, None, None]))


CONV_INPUTS = [random(2, 4, 5, 7), random(2, 6, seed=1), random(2, 6, 5, 7, seed=2)]


def test_convolution_takes_in_vector_residual_and_activation() -> None:
    found, report = fuse(ConvEpilogue(), CONV_INPUTS, [CLEAN, conv2d_epilogue.PASS])
    assert found == {CONV: 1}
    assert report.matches["conv2d_epilogue"] == {"convolution": 1, "vector": 1, "residual": 1, "silu": 1}


class ConvReadTwice(ConvEpilogue):
    def forward(self, x: Tensor, vector: Tensor, residual: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + residual) * y + vector[:, :, None, None]


def test_convolution_read_twice_takes_in_nothing() -> None:
    found, report = fuse(ConvReadTwice(), CONV_INPUTS, [CLEAN, conv2d_epilogue.PASS])
    assert report.matches["conv2d_epilogue"] == {"convolution": 1} and found["add.Tensor"] == 2


class Activated(nn.Module):
    """An addition after the activation must not be moved before the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x)) + x


def test_addition_behind_the_activation_stays_behind_it() -> None:
    found, _ = fuse(Activated(), [random(2, 4, 5, 7)], [CLEAN, conv2d_epilogue.PASS])
    assert found == {CONV: 1, "add.Tensor": 1}


@pytest.mark.parametrize("options", [{"dilation": 2}, {"groups": 2}])
def test_dilated_and_grouped_convolutions_stay(options: dict[str, int]) -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3, padding=2, **options))

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    assert "conv2d" in fuse(Call(), [random(2, 4, 6, 6)], [CLEAN, conv2d_epilogue.PASS, tokens.PASS])[0]
