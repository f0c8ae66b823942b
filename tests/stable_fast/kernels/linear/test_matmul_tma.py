"""The persistent TMA matrix products: results against float64, choice of tile, and refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.activations import ACTIVATIONS, activate
from modules.stable_fast.kernels.devices import CardClass
from modules.stable_fast.kernels.linear import linear_geglu
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_geglu, launch_tma_matmul
from modules.stable_fast.kernels.linear.tma_tiles import (
    TMA_GEGLU_TILES,
    TMA_MATMUL_TILES,
    TmaMatmulTile,
    choose_tma_tile,
    serves_tma,
)
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.triton_import import INTERPRETED
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, on_devices

PLAIN, EXTRA = TmaMatmulTile(32, 32, 0, 32, 4, 2, 1), TmaMatmulTile(32, 32, 16, 32, 4, 2, 1)
geglu_tiles = pytest.mark.parametrize("tile", [PLAIN, EXTRA] if INTERPRETED else TMA_GEGLU_TILES, ids=str)
matmul_tiles = pytest.mark.parametrize("tile", [PLAIN, EXTRA] if INTERPRETED else TMA_MATMUL_TILES, ids=str)
# The interpreter multiplies bfloat16 matrices as if their bits were integers; on a GPU, fp32 tiles would not fit.
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]
in_product_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# M, K, N: whole tiles; rows, depth and columns that end inside a tile; more tiles than programs; a single row.
SHAPES = [(64, 64, 96), (130, 72, 88), (45, 136, 104) if INTERPRETED else (77, 320, 200), (1, 24, 40)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True)
def _on_hopper_or_interpreted():
    if not INTERPRETED and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("needs a Hopper GPU")


@on_devices
@in_product_dtypes
@geglu_tiles
@shapes
@pytest.mark.parametrize("with_bias", [True, False])
def test_geglu(with_bias, shape, tile, dtype, device):
    m, k, n = shape
    make = Maker(device, dtype)
    x, weight = make.rows(m, k), make.rows(2 * n, k, scale=k**-0.5)
    bias = make.rows(2 * n) if with_bias else None
    value, gate = F.linear(*doubled(x, weight, bias)).chunk(2, -1)
    assert_near(launch_tma_geglu(x, weight, bias, tile), value * F.gelu(gate))


@on_devices
@in_product_dtypes
@matmul_tiles
@shapes
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matmul_with_epilogue(activation, shape, tile, dtype, device):
    m, k, n = shape
    make = Maker(device, dtype)
    x, weight, bias, residual = make.rows(m, k), make.rows(n, k, scale=k**-0.5), make.rows(n), make.rows(m, n)
    y = launch_tma_matmul(x, None, weight, bias, residual, activation, tile)
    dx, dw, db, dr = doubled(x, weight, bias, residual)
    assert_near(y, activate(F.linear(dx, dw, db), activation) + dr)


@on_devices
@matmul_tiles
def test_matmul_without_bias_or_residual(tile, device):
    make = Maker(device, torch.float16)
    x, weight = make.rows(150, 40), make.rows(72, 40)
    assert_near(launch_tma_matmul(x, None, weight, None, None, "none", tile), F.linear(*doubled(x, weight)))


@on_devices
@in_product_dtypes
@matmul_tiles
@pytest.mark.parametrize("sizes", [(64, 32), (24, 40)], ids=str)
def test_matmul_over_two_inputs(sizes, tile, dtype, device):
    make = Maker(device, dtype)
    a, b = (make.rows(140, k) for k in sizes)
    weight, bias, residual = make.rows(56, sum(sizes), scale=0.1), make.rows(56), make.rows(140, 56)
    y = launch_tma_matmul(a, b, weight, bias, residual, "none", tile)
    da, db, dw, dbias, dr = doubled(a, b, weight, bias, residual)
    assert_near(y, F.linear(torch.cat((da, db), 1), dw, dbias) + dr)


@on_devices
@geglu_tiles
def test_operands_may_be_views(tile, device):
    """Operands are slices of a wider tensor, as in a packed projection. Neighbouring values must not leak in."""
    make = Maker(device, torch.float16)
    x, weight = make.rows(70, 96)[:, 16:56], make.rows(90, 64)[8:88, 8:48]
    value, gate = F.linear(*doubled(x, weight)).chunk(2, -1)
    assert_near(launch_tma_geglu(x, weight, None, tile), value * F.gelu(gate))


@on_devices
@pytest.mark.parametrize("shift", [0, 1])
def test_unaligned_operands_are_refused(shift, device):
    make = Maker(device, torch.float16)
    x, weight = make.rows(33 * 16 + 8)[shift : shift + 33 * 16].view(33, 16), make.rows(48, 16)
    assert serves_tma(24, x, weight) == (shift == 0)
    assert not serves_tma(23, x, weight)  # rows of the result would not start at multiples of 16 bytes
    assert not serves_tma(24, make.rows(33, 12), make.rows(48, 12))
    if shift:
        with pytest.raises(Unsupported, match="16 bytes"):
            launch_tma_geglu(x, weight, None, PLAIN)


H200 = 132


@pytest.mark.parametrize(
    ("m", "inner", "k", "columns"),
    [(8192, 1280, 320, 128), (2048, 2560, 640, 160), (512, 5120, 1280, 160), (32768, 1280, 320, 128)],
)
def test_tiles_fill_the_machine(m, inner, k, columns):
    """At 512 rows, tiles of 128 columns need 160 programs, in two rounds. With 160 columns, 128 fit in one round."""
    assert choose_tma_tile(TMA_GEGLU_TILES, m, inner, k, 2, H200).columns == columns


def test_small_products_get_small_tiles():
    assert choose_tma_tile(TMA_MATMUL_TILES, 512, 1280, 1280, 1, H200).m == 64
    assert choose_tma_tile(TMA_MATMUL_TILES, 8192, 320, 1280, 1, H200)[:3] == (128, 128, 32)


def test_every_tile_has_its_name():
    for names in ([tile.name for tile in TMA_GEGLU_TILES], [tile.name for tile in TMA_MATMUL_TILES]):
        assert len(set(names)) == len(names)
    assert {tile.name for tile in TMA_GEGLU_TILES} < set(linear_geglu.CANDIDATES.on(CardClass.WGMMA))
