"""LayerNorm that writes 8 bits, alone and after an addition, against the reference."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.eight_bits.layer_norm_quantized import (
    add_layer_norm_quantized_reference,
    layer_norm_quantized_reference,
)
from modules.stable_fast.kernels.eight_bits.row_kernels import launch_layer_norm_quantized
from tests.stable_fast.kernels.eight_bits.operands import assert_same, of_kinds
from tests.stable_fast.kernels.kernel_device import Maker, on_devices


@on_devices
@of_kinds
@pytest.mark.parametrize("shape", [(2, 9, 40), (1, 3, 77), (4, 5, 1280)], ids=str)
def test_layer_norm(shape, kind, device):
    make = Maker(device, torch.float16)
    x, weight, bias = make.rows(*shape) + 5.0, make.rows(shape[-1]), make.rows(shape[-1])
    x[0, 0] = 3.0  # the norm of equal numbers is the bias
    _, q, scale = launch_layer_norm_quantized(x, None, weight, bias, 1e-5, kind)
    expected, expected_scale = layer_norm_quantized_reference(x, weight, bias, 1e-5, kind)
    assert torch.allclose(scale, expected_scale, rtol=1e-4)
    assert_same(q, expected, share=0.02)


@on_devices
@of_kinds
def test_after_an_addition_and_with_rows_that_are_not_finite(kind, device):
    make = Maker(device, torch.float16)
    x, residual, weight, bias = make.rows(4, 7, 48), make.rows(4, 7, 48), make.rows(48), make.rows(48)
    x[1, 0, 3], x[2, 0, 5] = torch.nan, torch.inf
    total, q, scale = launch_layer_norm_quantized(x, residual, weight, bias, 1e-5, kind)
    expected_total, expected, expected_scale = add_layer_norm_quantized_reference(x, residual, weight, bias, 1e-5, kind)
    assert torch.equal(total.nan_to_num(), expected_total.nan_to_num())
    assert scale.isnan().nonzero().tolist() == expected_scale.isnan().nonzero().tolist() == [[1, 0, 0], [2, 0, 0]]
    finite = ~scale.isnan().view(4, 7)
    assert_same(q[finite], expected[finite], share=0.02)
