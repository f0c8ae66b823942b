"""Convolutions of 8-bit numbers, plain and after upsampling, by both of Triton's kernels, against the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue, launch_conv, launch_subpixel_conv
from modules.stable_fast.kernels.conv.implicit_matmul_tma import (
    TMA_CONV_TILES,
    TmaConvTile,
    launch_tma_conv,
    launch_tma_subpixel_conv,
)
from modules.stable_fast.kernels.conv.upsample_conv2d import prepare_subpixel_weight
from modules.stable_fast.kernels.eight_bits.conv2d_eight import TILES, conv2d_eight_reference
from modules.stable_fast.kernels.eight_bits.quantize_rows import quantize_channels_reference
from modules.stable_fast.kernels.eight_bits.quantize_tensor import quantize_tensor_reference
from modules.stable_fast.kernels.eight_bits.upsample_conv2d_eight import upsample_conv2d_eight_reference
from modules.stable_fast.kernels.linear.matmul import Tile
from modules.stable_fast.kernels.scaled.kinds import LARGEST
from modules.stable_fast.kernels.scaled.scales import Scales
from tests.stable_fast.kernels.eight_bits.operands import of_kinds, on_kernels
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, on_devices

MMA, TMA = Tile(64, 32, 64, 4, 2), TmaConvTile(64, 32, 4, 2)
KERNELS = {MMA: partial(launch_conv, tile=MMA), TMA: partial(launch_tma_conv, tile=TMA)}
SUBPIXEL = {MMA: partial(launch_subpixel_conv, tile=MMA), TMA: partial(launch_tma_subpixel_conv, tile=TMA)}
# Hopper sums products of e4m3 with 13 bits or so, which over thousands of them costs more than rounding to fp16. We
# keep that: it is a fifth of what rounding the operands costs, and longer sums take registers and time.
SHORT_SUMS = 5
# batch, Cin, Cout, height, width: whole tiles; odd sizes, and channels that end inside a tile.
SHAPES = [(2, 128, 32, 4, 8), (2, 32, 40, 5, 3)]


def operands(make, kind, shape, kernel=3):
    batch, cin, cout, height, width = shape
    x = make.image(batch, cin, height, width)
    x[-1, -1, -1, -1] = 50.0
    weight = make.image(cout, cin, kernel, kernel, scale=(cin * kernel**2) ** -0.5)
    weight[1] = 0.0
    scale = torch.tensor([5.0 / LARGEST[kind]], device=x.device)  # so the outlier saturates
    return quantize_tensor_reference(x, scale, kind), scale, *quantize_channels_reference(weight, kind)


@on_devices
@of_kinds
@on_kernels(KERNELS)
@pytest.mark.parametrize(("shape", "splits"), [(SHAPES[0], 1), (SHAPES[1], 3)], ids=str)
def test_conv_with_whole_epilogue(shape, splits, kernel, kind, device):
    make = Maker(device, torch.float16)
    q, scale, weight, channels = operands(make, kind, shape)
    batch, _, cout, *size = shape
    bias, vector, residual = make.rows(cout), make.rows(batch, 2 * cout)[:, cout:], make.image(batch, cout, *size)
    epilogue = Epilogue(bias, vector, residual, "silu", Scales(scale, channels, torch.float16))
    y = kernel(q, weight, epilogue, 1, 1, splits=splits)
    args = (q, scale, weight, channels, bias, vector, residual, 1, 1, "silu", torch.float32)
    assert y.dtype == torch.float16 and y.is_contiguous(memory_format=torch.channels_last)
    assert_near(y, conv2d_eight_reference(*args))


@on_devices
@of_kinds
@pytest.mark.parametrize(("shape", "kernel", "stride"), [((2, 32, 40, 9, 8), 3, 2), ((1, 7, 5, 6, 5), 3, 1),
                                                         ((2, 48, 16, 4, 5), 1, 1)])  # fmt: skip
def test_strides_and_odd_channels(shape, kernel, stride, kind, device):
    q, scale, weight, channels = operands(Maker(device, torch.float16), kind, shape, kernel)
    epilogue = Epilogue(scales=Scales(scale, channels, torch.float16))
    y = launch_conv(q, weight, epilogue, stride, kernel // 2, MMA)
    args = (q, scale, weight, channels, None, None, None, stride, kernel // 2, "none", torch.float32)
    assert_near(y, conv2d_eight_reference(*args))


@on_devices
@of_kinds
@on_kernels(SUBPIXEL)
def test_upsampling(kernel, kind, device):
    make = Maker(device, torch.float16)
    q, scale, *_ = operands(make, kind, (1, 32, 40, 5, 3))
    weight, channels = quantize_channels_reference(prepare_subpixel_weight(make.image(40, 32, 3, 3, scale=0.05)), kind)
    bias = make.rows(40)
    y = kernel(q, weight, bias, scales=Scales(scale, channels, torch.float16))
    assert_near(y, upsample_conv2d_eight_reference(q, scale, weight, channels, bias, torch.float32))


@pytest.mark.gpu
@of_kinds
@on_kernels({tile: partial(launch_conv, tile=tile) for tile in TILES}
            | {tile: partial(launch_tma_conv, tile=tile) for tile in TMA_CONV_TILES})  # fmt: skip
@pytest.mark.parametrize("shape", [(2, 320, 320, 128, 128), (2, 1280, 1280, 16, 16), (2, 2560, 1280, 8, 8)], ids=str)
def test_real_sizes(shape, kernel, kind):
    make = Maker("cuda", torch.float16)
    q, scale, weight, channels = operands(make, kind, shape)
    batch, _, cout, *size = shape
    bias, residual = make.rows(cout), make.image(batch, cout, *size)
    y = kernel(q, weight, Epilogue(bias, None, residual, "none", Scales(scale, channels, torch.float16)), 1, 1)
    product = F.conv2d(q.double(), weight.double(), padding=1) * scale * channels[:, None, None]
    assert_near(y, product + bias[:, None, None] + residual, slack=SHORT_SUMS if kind == torch.float8_e4m3fn else 2)
