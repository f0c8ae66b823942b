"""The convolution as an implicit matrix product, against float64, with and without split depth."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.accumulation import product_reference, summing_in_half
from modules.stable_fast.kernels.conv.implicit_matmul import (
    MAX_SPLITS,
    Epilogue,
    choose_splits,
    launch_conv,
)
from modules.stable_fast.kernels.linear.matmul import Tile
from tests.stable_fast.kernels.conv.operands import SHAPES, expected, operands
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, in_product_dtypes, on_devices

TILE = Tile(32, 32, 32, 4, 2)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conv_with_whole_epilogue(shape, splits, dtype, device):
    x, weight, bias, vector, residual, stride, padding = operands(Maker(device, dtype), shape)
    y = launch_conv(x, weight, Epilogue(bias, vector, residual, "silu"), stride, padding, TILE, splits=splits)
    assert_near(y, expected(x, weight, bias, vector, residual, stride, padding, "silu"))
    assert y.is_contiguous(memory_format=torch.channels_last)


@on_devices
@pytest.mark.parametrize("parts", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
def test_conv_with_part_of_the_epilogue(parts, device):
    x, weight, *addends, stride, padding = operands(Maker(device, torch.float32), SHAPES[0])
    bias, vector, residual = (a if kept else None for a, kept in zip(addends, parts, strict=True))
    y = launch_conv(x, weight, Epilogue(bias, vector, residual), stride, padding, TILE)
    assert_near(y, expected(x, weight, bias, vector, residual, stride, padding, "none"))


@on_devices
def test_one_vector_serves_the_whole_batch(device):
    x, weight, bias, vector, residual, stride, padding = operands(Maker(device, torch.float32), SHAPES[0])
    for splits in (1, 2):
        y = launch_conv(x, weight, Epilogue(bias, vector[:1]), stride, padding, TILE, splits=splits)
        assert_near(y, expected(x, weight, bias, vector[:1], None, stride, padding, "none"))


@on_devices
def test_a_tile_of_the_depth_is_summed_in_fp16_if_that_is_allowed(device):
    make = Maker(device, torch.float16)
    x, weight = make.image(1, 160, 6, 6), make.image(40, 160, 3, 3, scale=0.02)
    patches = torch.nn.functional.unfold(x.float(), 3, padding=1)[0].T.reshape(36, 160, 9).transpose(1, 2).flatten(1)
    exact = product_reference(patches, weight.permute(0, 2, 3, 1).flatten(1), TILE.k)
    for splits in (1, 3):
        with summing_in_half(allowed=True):
            y = launch_conv(x, weight, Epilogue(), 1, 1, TILE, splits=splits)
        assert_near(y, exact.T.reshape(1, 40, 6, 6))
        assert not torch.equal(y, launch_conv(x, weight, Epilogue(), 1, 1, TILE, splits=splits))


def test_splits_fill_the_machine_without_starving_a_program():
    assert choose_splits(tiles=10, steps=180, processors=132) == 13
    assert choose_splits(tiles=200, steps=180, processors=132) == 1
    assert choose_splits(tiles=1, steps=9, processors=132) == 1
    assert choose_splits(tiles=1, steps=1000, processors=132) == MAX_SPLITS
