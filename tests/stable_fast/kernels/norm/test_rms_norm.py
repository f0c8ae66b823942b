"""RMSNorm kernels against float64, with and without weight and the addition before the norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.norm.rms_norm import launch_rms_norm
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, in_dtypes, on_devices


@on_devices
@in_dtypes
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(2, 9, 40), (1, 3, 77), (2, 1, 1280), (1, 1, 1)], ids=str)
def test_rms_norm(shape, weighted, dtype, device):
    make = Maker(device, dtype)
    x, weight = make.rows(*shape) + 2.0, make.rows(shape[-1]) if weighted else None
    _, y = launch_rms_norm(x, None, weight, 1e-6)
    dx, dw = doubled(x, weight)
    assert_near(y, F.rms_norm(dx, shape[-1:], dw, 1e-6), slack=2)


@on_devices
@in_dtypes
def test_add_rms_norm_normalises_the_rounded_sum(dtype, device):
    make = Maker(device, dtype)
    x, residual, weight = make.rows(2, 7, 48), make.rows(2, 7, 48), make.rows(48)
    total, y = launch_rms_norm(x, residual, weight, 1e-6)
    assert_near(total, x.double() + residual.double())
    dt, dw = doubled(total, weight)
    assert_near(y, F.rms_norm(dt, (48,), dw, 1e-6), slack=2)


@on_devices
def test_large_values_do_not_overflow(device):
    x = Maker(device, torch.float16).rows(1, 4, 64, scale=1e4)  # their squares are beyond float16
    assert torch.isfinite(launch_rms_norm(x, None, None, 1e-6)[1]).all()
