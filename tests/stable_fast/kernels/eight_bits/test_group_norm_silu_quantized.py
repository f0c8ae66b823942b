"""GroupNorm that writes 8 bits, of one tensor and of two, by both implementations, against the reference."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.eight_bits.group_norm_silu_quantized import (
    group_norm_silu_cat_quantized_reference,
    group_norm_silu_quantized_reference,
)
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.norm.group_norm_kernels import launch_one_kernel, launch_two_kernels
from modules.stable_fast.kernels.scaled.kinds import LARGEST
from modules.stable_fast.kernels.scaled.scales import Eight
from tests.stable_fast.kernels.eight_bits.operands import assert_same, of_kinds
from tests.stable_fast.kernels.kernel_device import Maker, on_devices


@on_devices
@of_kinds
@pytest.mark.parametrize("launch", [launch_one_kernel, launch_two_kernels])
@pytest.mark.parametrize("split", [None, 40], ids=["one", "two"])
@pytest.mark.parametrize("shape", [(2, 64, 8, 8), (1, 60, 5, 7)], ids=str)
def test_group_norm(shape, split, launch, kind, device):
    make = Maker(device, torch.float16)
    x, weight, bias = make.image(*shape) + 3.0, make.rows(shape[1]), make.rows(shape[1])
    scale = torch.tensor([3.0 / LARGEST[kind]], device=device)  # some numbers saturate
    tail = (weight, bias, 4, 1e-5, True)
    if split is None:
        q = launch(x, None, *tail, Eight(scale, kind))
        expected = group_norm_silu_quantized_reference(x, *tail, scale, kind)
    else:
        parts = to_channels_last(x[:, :split]), to_channels_last(x[:, split:])
        q = launch(*parts, *tail, Eight(scale, kind))
        expected = group_norm_silu_cat_quantized_reference(*parts, *tail, scale, kind)
    assert q.is_contiguous(memory_format=torch.channels_last)
    assert_same(q, expected, share=0.02)
    assert float(q.float().abs().max()) == LARGEST[kind]
