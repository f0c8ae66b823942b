"""The convolution that copies tiles by descriptor, against float64: borders, epilogues, split depth, sub-pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.conv.conv2d_epilogue import conv2d_epilogue_reference
from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue
from modules.stable_fast.kernels.conv.implicit_matmul_tma import (
    Box,
    TmaConvTile,
    choose_box,
    choose_tma_splits,
    launch_tma_conv,
    launch_tma_subpixel_conv,
)
from modules.stable_fast.kernels.conv.upsample_conv2d import prepare_subpixel_weight
from modules.stable_fast.kernels.devices import runs_tma_kernels
from modules.stable_fast.kernels.refusals import Unsupported
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, in_product_dtypes, on_devices

TILE = TmaConvTile(64, 32, 4, 2)
# batch, Cin, Cout, height, width: a whole tile, odd sizes, sample boxes larger than the batch, partial channel tiles.
SHAPES = [(2, 64, 64, 8, 8), (1, 24, 40, 5, 7), (2, 72, 16, 9, 12), (2, 8, 36, 5, 17), (3, 136, 7, 3, 2)]


@pytest.fixture(autouse=True)
def _only_where_tiles_are_copied(device):
    if not runs_tma_kernels(torch.empty(1, device=device)):
        pytest.skip("this GPU has no TMA")


def operands(make, shape, kernel=3):
    batch, cin, cout, height, width = shape
    x = make.image(batch, cin, height, width)
    weight = make.image(cout, cin, kernel, kernel, scale=(cin * kernel**2) ** -0.5)
    vector = make.rows(batch, 2 * cout)[:, cout:]
    return x, weight, make.rows(cout), vector, make.image(batch, cout, height, width)


def expected(x, weight, bias, vector, residual, activation, padding=1):
    return conv2d_epilogue_reference(*doubled(x, weight, bias, vector, residual), 1, padding, activation)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conv_with_whole_epilogue(shape, splits, dtype, device):
    x, weight, bias, vector, residual = operands(Maker(device, dtype), shape)
    y = launch_tma_conv(x, weight, Epilogue(bias, vector, residual, "silu"), 1, 1, TILE, splits=splits)
    assert_near(y, expected(x, weight, bias, vector, residual, "silu"))
    assert y.is_contiguous(memory_format=torch.channels_last)


@on_devices
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("parts", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
def test_conv_with_part_of_the_epilogue(parts, splits, device):
    x, weight, *addends = operands(Maker(device, torch.float32), SHAPES[1])
    bias, vector, residual = (a if kept else None for a, kept in zip(addends, parts, strict=True))
    y = launch_tma_conv(x, weight, Epilogue(bias, vector, residual), 1, 1, TILE, splits=splits)
    assert_near(y, expected(x, weight, bias, vector, residual, "none"))


@on_devices
def test_one_vector_serves_the_whole_batch(device):
    x, weight, bias, vector, _ = operands(Maker(device, torch.float32), SHAPES[2])
    y = launch_tma_conv(x, weight, Epilogue(bias, vector[:1]), 1, 1, TILE)
    assert_near(y, expected(x, weight, bias, vector[:1], None, "none"))


@on_devices
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (5, 2)])
def test_other_kernels_and_paddings(kernel, padding, device):
    x, weight, bias, *_ = operands(Maker(device, torch.float32), SHAPES[1], kernel)
    y = launch_tma_conv(x, weight, Epilogue(bias), 1, padding, TILE)
    assert_near(y, expected(x, weight, bias, None, None, "none", padding))


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("shape", [(2, 16, 32, 4, 4), (1, 72, 7, 3, 5)], ids=str)
def test_subpixel_upsampling(shape, dtype, device):
    x, weight, bias, *_ = operands(Maker(device, dtype), shape)
    cout, (height, width) = shape[2], shape[3:]
    prepared = prepare_subpixel_weight(weight)
    y = launch_tma_subpixel_conv(x, prepared, bias, TILE)
    dx, dw, db = doubled(x, prepared, bias)
    windows = F.conv2d(dx, dw, padding=1)
    for p in (0, 1):
        for q in (0, 1):
            part = windows[:, (2 * p + q) * cout : (2 * p + q + 1) * cout, p : p + height, q : q + width]
            assert_near(y[:, :, p::2, q::2], part + db[:, None, None])


@on_devices
def test_what_it_does_not_serve_is_refused(device):
    make = Maker(device, torch.float16)
    x, weight, bias, *_ = operands(make, SHAPES[0])
    with pytest.raises(Unsupported, match="stride 1"):
        launch_tma_conv(x, weight, Epilogue(bias), 2, 1, TILE)
    x, weight, bias, *_ = operands(make, (1, 20, 8, 4, 4))
    with pytest.raises(Unsupported, match="20 channels"):
        launch_tma_conv(x, weight, Epilogue(bias), 1, 1, TILE)
    with pytest.raises(Unsupported, match="20 channels"):
        launch_tma_subpixel_conv(x, prepare_subpixel_weight(weight), bias, TILE)


@pytest.mark.parametrize("device", ["cpu"])
@pytest.mark.parametrize(
    ("pixels", "image", "box"),
    [
        (128, (2, 64, 64), (1, 8, 16)), (128, (8, 16, 16), (1, 8, 16)), (128, (2, 8, 8), (2, 8, 8)),
        (128, (2, 24, 24), (2, 8, 8)), (128, (1, 2, 300), (1, 2, 64)), (256, (1, 512, 512), (1, 16, 16)),
    ],
)  # fmt: skip
def test_boxes_cover_the_images_with_little_waste(pixels, image, box, device):
    chosen = choose_box(pixels, *image)
    assert chosen == box
    assert chosen.samples * chosen.rows * chosen.columns == pixels


@pytest.mark.parametrize("device", ["cpu"])
def test_the_depth_is_split_where_the_last_wave_would_be_short(device):
    tile = TmaConvTile(128, 128, 8, 3)
    assert Box(1, 8, 16).number_over(2, 16, 16) * 10 == 40
    assert choose_tma_splits(tile, tiles=40, steps=180, processors=132) == 3
    assert choose_tma_splits(tile, tiles=132, steps=45, processors=132) == 1
    assert choose_tma_splits(tile, tiles=10, steps=180, processors=132) == 13
    assert choose_tma_splits(tile, tiles=10, steps=1, processors=132) == 1
