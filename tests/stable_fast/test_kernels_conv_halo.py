"""The convolution with windows of shared memory, against float64, on a Hopper GPU; elsewhere what it refuses."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels import _conv_halo as conv
from modules.stable_fast.kernels._conv_matmul import Epilogue
from modules.stable_fast.kernels._dispatch import Unsupported, is_hopper
from modules.stable_fast.kernels._gluon import WINDOWS
from modules.stable_fast.kernels.conv2d_epilogue import conv2d_epilogue_reference
from tests.stable_fast.kernel_device import Maker, assert_near, doubled

# batch, Cin, Cout, height, width: whole tiles; odd sizes and ragged channels; fewer columns than a tile has.
SHAPES = [(2, 128, 320, 32, 32), (1, 136, 200, 21, 13), (3, 72, 16, 16, 5)]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("tile", conv.HALO_TILES, ids=lambda tile: tile.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conv_with_whole_epilogue(shape, tile, splits, dtype):
    batch, cin, cout, height, width = shape
    make = Maker("cuda", dtype)
    x, weight = make.image(batch, cin, height, width), make.image(cout, cin, 3, 3, scale=(9 * cin) ** -0.5)
    if not (WINDOWS and is_hopper(x)):
        pytest.skip("needs Triton 3.6 and a Hopper GPU")
    bias, vector, residual = make.rows(cout), make.rows(batch, cout), make.image(batch, cout, height, width)
    y = conv.launch_halo_conv(x, weight, Epilogue(bias, vector, residual, "silu"), 1, 1, tile, splits=splits)
    expected = conv2d_epilogue_reference(*doubled(x, weight, bias, vector, residual), 1, 1, "silu")
    assert_near(y, expected)


def test_it_is_refused_off_a_hopper_gpu():
    make = Maker("cpu", torch.float16)
    with pytest.raises(Unsupported, match="Hopper"):
        conv.launch_halo_conv(
            make.image(1, 8, 16, 16), make.image(8, 8, 3, 3), Epilogue(), 1, 1, conv.HALO_TILES[0], splits=1
        )


def test_160_channels_give_132_multiprocessors_one_program_each():
    wide = conv.HALO_TILES[0]
    for tiles, blocks, splits in ((128, 5, 1), (64, 10, 2), (32, 20, 4)):
        assert conv.choose_halo_splits(wide, tiles, blocks, processors=132) == splits
