"""Triton's matrix products with their epilogues, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.accumulation import product_reference, summing_in_half
from modules.stable_fast.kernels.activations import ACTIVATIONS, activate
from modules.stable_fast.kernels.linear.matmul import Tile, launch_geglu_matmul, launch_matmul
from tests.stable_fast.kernels.kernel_device import (
    Maker,
    assert_near,
    doubled,
    in_product_dtypes,
    on_devices,
)

TILE = Tile(32, 32, 32, 4, 2)
# M, K, N: whole tiles; odd sizes; a single row.
SHAPES = [(64, 64, 32), (33, 40, 23), (1, 17, 5)]


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matmul_with_epilogue(activation, shape, dtype, device):
    m, k, n = shape
    make = Maker(device, dtype)
    x, weight, bias, residual = make.rows(m, k), make.rows(n, k, scale=k**-0.5), make.rows(n), make.rows(m, n)
    y = launch_matmul(x, None, weight, bias, residual, activation, TILE)
    dx, dw, db, dr = doubled(x, weight, bias, residual)
    assert_near(y, activate(F.linear(dx, dw, db), activation) + dr)


@on_devices
def test_matmul_without_bias_or_residual(device):
    make = Maker(device, torch.float32)
    x, weight = make.rows(10, 32), make.rows(12, 32)
    assert_near(launch_matmul(x, None, weight, None, None, "none", TILE), F.linear(*doubled(x, weight)))


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("sizes", [(64, 32), (24, 40)], ids=str)
def test_matmul_over_two_inputs(sizes, dtype, device):
    make = Maker(device, dtype)
    a, b = (make.rows(40, k) for k in sizes)
    weight, bias = make.rows(20, sum(sizes), scale=0.1), make.rows(20)
    y = launch_matmul(a, b, weight, bias, None, "none", TILE)
    da, db, dw, dbias = doubled(a, b, weight, bias)
    assert_near(y, F.linear(torch.cat((da, db), 1), dw, dbias))


@on_devices
@in_product_dtypes
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_geglu_matmul(shape, with_bias, dtype, device):
    m, k, n = shape
    make = Maker(device, dtype)
    x, weight = make.rows(m, k), make.rows(2 * n, k, scale=k**-0.5)
    bias = make.rows(2 * n) if with_bias else None
    y = launch_geglu_matmul(x, weight, bias, TILE)
    value, gate = F.linear(*doubled(x, weight, bias)).chunk(2, -1)
    assert_near(y, value * F.gelu(gate))


@on_devices
def test_a_tile_of_the_depth_is_summed_in_fp16_if_that_is_allowed(device):
    make = Maker(device, torch.float16)
    x, weight = make.rows(48, 320), make.rows(40, 320, scale=0.05)
    expected = product_reference(x, weight, TILE.k)
    with summing_in_half(allowed=True):
        y = launch_matmul(x, None, weight, None, None, "none", TILE)
        single = launch_matmul(x.float(), None, weight.float(), None, None, "none", TILE)
    assert_near(y, expected)
    assert not torch.equal(y, launch_matmul(x, None, weight, None, None, "none", TILE))
    assert torch.equal(single, launch_matmul(x.float(), None, weight.float(), None, None, "none", TILE))


@on_devices
def test_geglu_is_summed_in_fp16_if_that_is_allowed(device):
    make = Maker(device, torch.float16)
    x, weight, bias = make.rows(48, 320), make.rows(80, 320, scale=0.05), make.rows(80)
    value, gate = (product_reference(x, weight, TILE.k) + bias).chunk(2, -1)
    with summing_in_half(allowed=True):
        y = launch_geglu_matmul(x, weight, bias, TILE)
    assert_near(y, value * F.gelu(gate))
    assert not torch.equal(y, launch_geglu_matmul(x, weight, bias, TILE))
