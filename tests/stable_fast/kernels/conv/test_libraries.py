"""Convolutions as a library's matrix products, against float64: on gathered patches, or on pixels for a 1x1 kernel."""

from __future__ import annotations

import pytest

from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue
from modules.stable_fast.kernels.conv.libraries import patches_conv, pointwise_conv
from tests.stable_fast.kernels.conv.operands import SHAPES, expected, operands
from tests.stable_fast.kernels.kernel_device import (
    Maker,
    assert_near,
    in_product_dtypes,
    on_devices,
)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("shape", [(1, 20, 24, 3, 5, 3, 1), (2, 32, 40, 5, 4, 3, 2)], ids=str)
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
