"""LayerNorm kernels against float64, with and without the addition before the norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.norm.layer_norm import launch_layer_norm
from tests.stable_fast.kernels.kernel_device import (
    Maker,
    assert_near,
    doubled,
    in_dtypes,
    on_devices,
)


@on_devices
@in_dtypes
@pytest.mark.parametrize("shape", [(2, 9, 40), (1, 3, 77), (4, 5, 1280), (1, 1, 1)], ids=str)
def test_layer_norm(shape, dtype, device):
    make = Maker(device, dtype)
    x, weight, bias = make.rows(*shape) + 5.0, make.rows(shape[-1]), make.rows(shape[-1])
    _, y = launch_layer_norm(x, None, weight, bias, 1e-5)
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.layer_norm(dx, shape[-1:], dw, db, 1e-5))


@on_devices
@in_dtypes
def test_add_layer_norm_normalises_the_rounded_sum(dtype, device):
    make = Maker(device, dtype)
    x, residual, weight, bias = make.rows(2, 7, 48), make.rows(2, 7, 48), make.rows(48), make.rows(48)
    total, y = launch_layer_norm(x, residual, weight, bias, 1e-5)
    if dtype == torch.bfloat16 and device == "cpu":
        assert_near(total, x.double() + residual.double())  # the interpreter truncates to bfloat16
    else:
        assert torch.equal(total, x + residual)
    dt, dw, db = doubled(total, weight, bias)
    assert_near(y, F.layer_norm(dt, (48,), dw, db, 1e-5))
