"""The norm of heads with their rotary embedding in one kernel, alone and with text before the picture."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.elementwise.rms_norm_rotary import launch_rms_norm_rotary, rms_norm_rotary_reference
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, in_dtypes, on_devices


@on_devices
@in_dtypes
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(("shape", "text"), [((2, 9, 3, 40), 0), ((2, 5, 3, 40), 4), ((1, 1, 2, 6), 33)], ids=str)
def test_parts_of_wider_tensors(shape, text, interleaved, dtype, device):
    make, (batch, length, heads, size) = Maker(device, dtype), shape
    x = make.rows(batch, length, 3 * heads * size)[..., : heads * size].unflatten(-1, (heads, size)) + 1.0
    before = make.rows(batch, text, heads, size) if text else None
    weights = make.rows(size), make.rows(size) if text else None
    cos, sin = make.rows(1, text + length, 1, size), make.rows(1, text + length, 1, size)
    y = launch_rms_norm_rotary(x, weights[0], before, weights[1], 1e-6, cos, sin, interleaved)
    dx, dw, db, dbw, dcos, dsin = doubled(x, weights[0], before, weights[1], cos, sin)
    assert y.is_contiguous()
    assert_near(y, rms_norm_rotary_reference(dx, dw, db, dbw, 1e-6, dcos, dsin, interleaved), slack=3)


@on_devices
def test_large_values_do_not_overflow(device):
    make = Maker(device, torch.float16)
    turns = make.rows(1, 4, 1, 64)
    y = launch_rms_norm_rotary(make.rows(1, 4, 2, 64, scale=1e4), make.rows(64), None, None, 1e-6, turns, turns, True)
    assert torch.isfinite(y).all()
