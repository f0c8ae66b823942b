"""Passes over feature maps: each fuses its pattern, keeps the result, and leaves look-alikes alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.stable_fast.passes import cleanup, concat, conv_epilogue, group_norm_silu, subpixel_upsample, tokens
from tests.stable_fast.networks import random
from tests.stable_fast.toys import fuse

CLEAN = cleanup.PASS
CONV = "lightdiffusion.conv2d_epilogue"


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


class ConvEpilogue(nn.Module):
    def __init__(self, **options: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, **options)

    def forward(self, x: Tensor, vector: Tensor, residual: Tensor) -> Tensor:
        return F.silu(residual + (self.conv(x) + vector[:, :, None, None]))


CONV_INPUTS = [random(2, 4, 5, 7), random(2, 6, seed=1), random(2, 6, 5, 7, seed=2)]


def test_convolution_takes_in_vector_residual_and_activation() -> None:
    found, report = fuse(ConvEpilogue(), CONV_INPUTS, [CLEAN, conv_epilogue.PASS])
    assert found == {CONV: 1}
    assert report.matches["conv_epilogue"] == {"convolution": 1, "vector": 1, "residual": 1, "silu": 1}


class ConvReadTwice(ConvEpilogue):
    def forward(self, x: Tensor, vector: Tensor, residual: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + residual) * y + vector[:, :, None, None]


def test_convolution_read_twice_takes_in_nothing() -> None:
    found, report = fuse(ConvReadTwice(), CONV_INPUTS, [CLEAN, conv_epilogue.PASS])
    assert report.matches["conv_epilogue"] == {"convolution": 1} and found["add.Tensor"] == 2


class Activated(nn.Module):
    """An addition after the activation must not slip in before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x)) + x


def test_addition_behind_the_activation_stays_behind_it() -> None:
    found, _ = fuse(Activated(), [random(2, 4, 5, 7)], [CLEAN, conv_epilogue.PASS])
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

    assert "conv2d" in fuse(Call(), [random(2, 4, 6, 6)], [CLEAN, conv_epilogue.PASS, tokens.PASS])[0]


class Up(nn.Module):
    def __init__(self, scale: float = 2.0, kernel: int = 3, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, kernel, padding=kernel // 2)
        self.scale, self.size = (None if size else scale), size

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, size=self.size, scale_factor=self.scale, mode="nearest"))


@pytest.mark.parametrize("module", [Up(), Up(size=(10, 6))])
def test_upsampling_by_two(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 5, 3)], [CLEAN, subpixel_upsample.PASS])
    assert found == {"lightdiffusion.upsample_conv2d": 1}


@pytest.mark.parametrize("module", [Up(3.0), Up(kernel=5), Up(size=(9, 6))])
def test_other_upsampling_stays(module: nn.Module) -> None:
    found, _ = fuse(module, [random(2, 3, 5, 3)], [CLEAN, subpixel_upsample.PASS])
    assert found == {"upsample_nearest2d.vec": 1, "conv2d": 1}


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
