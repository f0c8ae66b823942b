"""Upsampling followed by a convolution, computed as convolutions at the small size, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.conv.implicit_matmul import launch_subpixel_conv
from modules.stable_fast.kernels.conv.upsample_conv2d import launch_unfold_parities, prepare_subpixel_weight
from modules.stable_fast.kernels.linear.matmul import Tile
from tests.stable_fast.kernels.kernel_device import (
    Maker,
    assert_near,
    doubled,
    in_product_dtypes,
    on_devices,
)

TILE = Tile(32, 32, 32, 4, 2)


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


def test_subpixel_upsampling_equals_upsample_then_convolve():
    make = Maker("cpu", torch.float64)
    x, weight, bias = make.image(2, 6, 5, 7), make.image(4, 6, 3, 3), make.rows(4)
    y = torch.ops.lightdiffusion.upsample_conv2d(x, prepare_subpixel_weight(weight), bias)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)  # weights are summed in fp32
