"""The elementwise epilogue in place, and GEGLU's product of halves, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.epilogue import launch_epilogue, launch_geglu
from tests.stable_fast.kernels.kernel_device import (
    Maker,
    assert_near,
    doubled,
    in_dtypes,
    on_devices,
)


@on_devices
@in_dtypes
def test_geglu_of_a_product(dtype, device):
    h = Maker(device, dtype).rows(3, 7, 46)
    value, gate = h.double().chunk(2, -1)
    assert_near(launch_geglu(h), value * F.gelu(gate))


@on_devices
@in_dtypes
@pytest.mark.parametrize("vector_rows", [0, 1, 3])
@pytest.mark.parametrize("residual_last", [False, True])
def test_epilogue_in_place_on_an_image(residual_last, vector_rows, dtype, device):
    make = Maker(device, dtype)
    y, residual, bias = make.image(3, 20, 5, 7), make.image(3, 20, 5, 7), make.rows(20)
    vector = make.rows(vector_rows, 50)[:, 30:] if vector_rows else None  # a slice of a packed row
    dy, dr, db, dv = doubled(y, residual, bias, vector)
    before = dy + db[:, None, None] + (0 if dv is None else dv[:, :, None, None])
    expected = activate(before, "silu") + dr if residual_last else activate(before + dr, "silu")
    result = launch_epilogue(y, bias, vector, residual, "silu", residual_last=residual_last)
    assert result is y
    assert_near(result, expected)


@on_devices
def test_an_empty_epilogue_launches_nothing(device):
    y = Maker(device, torch.float32).rows(4, 6)
    kept = y.clone()
    assert torch.equal(launch_epilogue(y, None, None, None, "none"), kept)
