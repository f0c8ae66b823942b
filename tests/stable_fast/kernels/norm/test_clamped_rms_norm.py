"""The norm of clamped values: the clamped ones are exact, the norm is compared with float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.norm.clamp_infinities import clamp_infinities_reference
from modules.stable_fast.kernels.norm.clamped_rms_norm import launch_clamped_rms_norm
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, in_dtypes, on_devices


@on_devices
@in_dtypes
@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("shape", [(2, 9, 40), (1, 3, 77), (1, 1, 1)], ids=str)
def test_clamped_rms_norm(shape, infinite, dtype, device):
    make = Maker(device, dtype)
    x, weight = make.rows(*shape), make.rows(shape[-1])
    if infinite:
        x[0, -1, -1] = float("inf")
    clamped, y = launch_clamped_rms_norm(x, weight, 1e-6, 0.5)
    assert torch.equal(clamped, clamp_infinities_reference(x, 0.5))
    wide, factor = doubled(clamped, weight)
    assert_near(y, F.rms_norm(wide, shape[-1:], factor, 1e-6), slack=2)
    assert torch.equal(launch_clamped_rms_norm(x, None, 1e-6, 0.5)[0], clamped)
