"""Attention with few keys against float64, on strided views of packed projections."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.attention.attention_packed import attention_packed_kv_reference
from modules.stable_fast.kernels.attention.cross import CrossTile, launch_cross
from modules.stable_fast.kernels.refusals import Unsupported
from tests.stable_fast.kernels.kernel_device import (
    Maker,
    assert_near,
    in_product_dtypes,
    on_devices,
)


@on_devices
@in_product_dtypes
@pytest.mark.parametrize(
    "heads,size,length,keys", [(2, 40, 100, 77), (1, 80, 33, 77), (1, 160, 20, 5), (2, 64, 40, 128)]
)
def test_few_keys_at_once(heads, size, length, keys, dtype, device):
    make = Maker(device, dtype)
    q, kv = make.rows(2, length, heads * size), make.rows(2, keys, 2 * heads * size)
    parts = q.unflatten(-1, (heads, size)), *kv.unflatten(-1, (2, heads, size)).unbind(2)
    y = launch_cross(*parts, CrossTile(16, 3, 4))
    assert_near(y, attention_packed_kv_reference(q.double(), kv.double(), heads, False), slack=2)


@on_devices
def test_more_keys_than_stay_on_chip_are_refused(device):
    q, k = torch.zeros(1, 4, 1, 64, device=device), torch.zeros(1, 129, 1, 64, device=device)
    with pytest.raises(Unsupported, match="129"):
        launch_cross(q, k, k, CrossTile(16, 1, 4))
