"""Convolution kernels against float64: implicit matrix product, split depth, sub-pixel upsampling, gathered patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.conv.conv2d_epilogue import conv2d_epilogue_reference
from modules.stable_fast.kernels.conv.implicit_matmul import (
    MAX_SPLITS,
    Epilogue,
    choose_splits,
    launch_conv,
    launch_subpixel_conv,
)
from modules.stable_fast.kernels.conv.libraries import patches_conv, pointwise_conv
from modules.stable_fast.kernels.conv.upsample_conv2d import launch_unfold_parities, prepare_subpixel_weight
from modules.stable_fast.kernels.linear.matmul import Tile
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, in_product_dtypes, on_devices

TILE = Tile(32, 32, 32, 4, 2)
# batch, Cin, Cout, height, width, kernel, stride: 3x3, odd everything, first and last layer, downsampling, 1x1.
SHAPES = [
    (2, 32, 32, 8, 8, 3, 1), (1, 20, 24, 5, 7, 3, 1), (8, 4, 32, 4, 4, 3, 1), (2, 32, 4, 6, 6, 3, 1),
    (2, 32, 40, 9, 8, 3, 2), (3, 48, 16, 4, 5, 1, 1),
]  # fmt: skip


def operands(make, shape):
    batch, cin, cout, height, width, kernel, stride = shape
    x = make.image(batch, cin, height, width)
    weight = make.image(cout, cin, kernel, kernel, scale=(cin * kernel**2) ** -0.5)
    out = [(size + 2 * (kernel // 2) - kernel) // stride + 1 for size in (height, width)]
    vector = make.rows(batch, 2 * cout)[:, cout:]
    return x, weight, make.rows(cout), vector, make.image(batch, cout, *out), stride, kernel // 2


def expected(x, weight, bias, vector, residual, stride, padding, activation):
    return conv2d_epilogue_reference(*doubled(x, weight, bias, vector, residual), stride, padding, activation)


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


def test_splits_fill_the_machine_without_starving_a_program():
    assert choose_splits(tiles=10, steps=180, processors=132) == 13
    assert choose_splits(tiles=200, steps=180, processors=132) == 1
    assert choose_splits(tiles=1, steps=9, processors=132) == 1
    assert choose_splits(tiles=1, steps=1000, processors=132) == MAX_SPLITS


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("shape", [(2, 16, 32, 4, 4), (1, 20, 7, 3, 5)], ids=str)
@pytest.mark.parametrize("route", ["triton", "windows"])
def test_subpixel_upsampling(route, shape, dtype, device):
    batch, cin, cout, height, width = shape
    make = Maker(device, dtype)
    x, bias = make.image(batch, cin, height, width), make.rows(cout)
    prepared = prepare_subpixel_weight(make.image(cout, cin, 3, 3, scale=(9 * cin) ** -0.5))
    dx, dw, db = doubled(x, prepared, bias)
    if route == "triton":
        y = launch_subpixel_conv(x, prepared, bias, TILE)
    else:
        windows = F.conv2d(x, prepared, padding=1).contiguous(memory_format=torch.channels_last)
        y = launch_unfold_parities(windows, bias)
    windows = F.conv2d(dx, dw, padding=1)
    for p in (0, 1):
        for q in (0, 1):
            part = windows[:, (2 * p + q) * cout : (2 * p + q + 1) * cout, p : p + height, q : q + width]
            assert_near(y[:, :, p::2, q::2], part + db[:, None, None], slack=2)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4]], ids=str)
def test_gathered_patches(shape, dtype, device):
    x, weight, bias, vector, residual, stride, padding = operands(Maker(device, dtype), shape)
    y = patches_conv(x, weight, Epilogue(bias, vector, residual, "silu"), stride, padding)
    assert_near(y, expected(x, weight, bias, vector, residual, stride, padding, "silu"), slack=2)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("bare", [True, False])
def test_pointwise_is_a_product_over_pixels(bare, dtype, device):
    x, weight, bias, vector, residual, *_ = operands(Maker(device, dtype), SHAPES[5])
    if bare:
        vector, residual = None, None
    y = pointwise_conv(x, weight, Epilogue(bias, vector, residual))
    assert_near(y, expected(x, weight, bias, vector, residual, 1, 0, "none"), slack=2)
