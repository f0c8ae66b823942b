"""Adaptive LayerNorm against float64, with vectors that are columns of a wider tensor."""

from __future__ import annotations

import pytest
import torch.nn.functional as F

from modules.stable_fast.kernels.norm.modulated_layer_norm import launch_modulated_layer_norm
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, in_dtypes, on_devices


@on_devices
@in_dtypes
@pytest.mark.parametrize("shape", [(3, 9, 40), (2, 5, 77), (2, 3, 1280)], ids=str)
def test_modulated_layer_norm(shape, dtype, device):
    make = Maker(device, dtype)
    x, vectors = make.rows(*shape) + 3.0, make.rows(shape[0], 6 * shape[-1])
    scale, shift = vectors.chunk(6, dim=1)[1:3]
    y = launch_modulated_layer_norm(x, scale, shift, 1e-6)
    expected = F.layer_norm(x.double(), shape[-1:], eps=1e-6) * (1 + scale.double()[:, None])
    assert_near(y, expected + shift.double()[:, None], slack=2)
