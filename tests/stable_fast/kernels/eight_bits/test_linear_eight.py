"""Products of 8-bit numbers with their epilogues, by both of Triton's kernels, against the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from modules.stable_fast.kernels.eight_bits.linear_eight import DEEP_TILES, TILES, TMA_TILES, linear_eight_reference
from modules.stable_fast.kernels.linear.cublaslt import cublaslt_matmul
from modules.stable_fast.kernels.linear.matmul import launch_matmul
from modules.stable_fast.kernels.linear.matmul_tma import launch_tma_matmul
from modules.stable_fast.kernels.scaled.scales import Scales
from tests.stable_fast.kernels.eight_bits.operands import MMA, TMA, eight, of_kinds, on_kernels
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, on_devices

KERNELS = {tile: partial(launch_matmul, tile=tile) for tile in MMA} | {
    tile: partial(launch_tma_matmul, tile=tile) for tile in TMA
}
# M, K, N: whole tiles; rows, depth and columns that end inside a tile; a single row.
SHAPES = [(64, 64, 32), (37, 80, 48), (1, 32, 48)]


@on_devices
@of_kinds
@on_kernels(KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_with_epilogue(shape, kernel, kind, device):
    m, k, n = shape
    make = Maker(device, torch.float16)
    (q, rows), (weight, columns) = eight(make, kind, m, k), eight(make, kind, n, k)
    bias, residual, scales = make.rows(n), make.rows(m, n), Scales(rows, columns * 0.01, torch.float16)
    y = kernel(q, None, weight, bias, residual, "silu", scales=scales)
    args = (q, rows, weight, columns.view(-1) * 0.01, bias, residual, "silu", torch.float32)
    assert y.dtype == torch.float16
    assert_near(y, linear_eight_reference(*args))


@on_devices
@of_kinds
def test_odd_sizes(kind, device):
    """Rows of bytes may start anywhere, which only the plain kernel reads."""
    make = Maker(device, torch.float16)
    (q, rows), (weight, columns) = eight(make, kind, 33, 41), eight(make, kind, 23, 41)
    y = launch_matmul(q, None, weight, None, None, "none", MMA[0], Scales(rows, columns, torch.float16))
    args = (q, rows, weight, columns.view(-1), None, None, "none", torch.float32)
    assert_near(y, linear_eight_reference(*args))


@on_devices
@of_kinds
@on_kernels(KERNELS)
def test_one_scale_for_all_rows(kernel, kind, device):
    make = Maker(device, torch.float16)
    (q, _), (weight, columns), scale = eight(make, kind, 50, 96), eight(make, kind, 48, 96), make.rows(1).float() / 1000
    y = kernel(q, None, weight, None, None, "none", scales=Scales(scale, columns, torch.float16))
    args = (q, scale, weight, columns.view(-1), None, None, "none", torch.float32)
    assert_near(y, linear_eight_reference(*args))


@on_devices
@of_kinds
@on_kernels(KERNELS)
def test_a_row_that_is_not_finite_stays_so(kernel, kind, device):
    make = Maker(device, torch.float16)
    (q, rows), (weight, columns) = eight(make, kind, 8, 32), eight(make, kind, 16, 32)
    rows[3] = torch.nan
    y = kernel(q, None, weight, None, None, "none", scales=Scales(rows, columns, torch.float16))
    assert y.isnan().any(1).tolist() == [row == 3 for row in range(8)]


@pytest.mark.gpu
@of_kinds
@on_kernels(
    {tile: partial(launch_matmul, tile=tile) for tile in TILES}
    | {tile: partial(launch_tma_matmul, tile=tile) for tile in (*TMA_TILES, *DEEP_TILES)}
)
@pytest.mark.parametrize("shape", [(2048, 1280, 3840), (2048, 5120, 1280), (8192, 2560, 640)], ids=str)
def test_real_sizes(shape, kernel, kind):
    """Deep sums: Hopper sums products of e4m3 with fewer bits than fp32 has."""
    m, k, n = shape
    make = Maker("cuda", torch.float16)
    (q, rows), (weight, columns) = eight(make, kind, m, k), eight(make, kind, n, k)
    bias, residual = make.rows(n), make.rows(m, n)
    y = kernel(q, None, weight, bias, residual, "none", scales=Scales(rows, columns * 0.01, torch.float16))
    expected = (q.double() @ weight.double().t()) * rows * columns.view(-1) * 0.01 + bias + residual
    assert_near(y, expected, slack=2)


@pytest.mark.gpu
@on_kernels({TMA[0]: cublaslt_matmul})
@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("with_all", [False, True])
def test_cublaslt(kernel, with_all, one_scale):
    make = Maker("cuda", torch.float16)
    (q, rows), (weight, columns) = (eight(make, torch.float8_e4m3fn, size, 1280) for size in (2048, 3840))
    columns = columns.view(-1) * 0.01
    rows = make.rows(1).float().abs() / 1000 if one_scale else rows
    bias, residual = (make.rows(3840), make.rows(2048, 3840)) if with_all else (None, None)
    y = kernel(q, weight, bias, residual, scales=Scales(rows, columns, torch.float16))
    expected = linear_eight_reference(q, rows, weight, columns, bias, residual, "none", torch.float32)
    assert_near(y, expected, slack=2)
