"""Rows, channels and tensors in 8 bits, by kernels and references: bounds of the error, zeros, what is not finite."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.eight_bits.dequantize_channels import (
    dequantize_channels_reference,
    launch_dequantize,
)
from modules.stable_fast.kernels.eight_bits.quantize_rows import (
    launch_channels,
    launch_rows,
    quantize_channels_reference,
    quantize_rows_reference,
)
from modules.stable_fast.kernels.eight_bits.quantize_tensor import launch_quantize_tensor, quantize_tensor_reference
from modules.stable_fast.kernels.scaled.kinds import LARGEST, quantised
from modules.stable_fast.kernels.triton_import import INTERPRETED
from tests.stable_fast.kernels.eight_bits.operands import of_kinds
from tests.stable_fast.kernels.kernel_device import Maker, in_dtypes, on_devices


@on_devices
@of_kinds
@in_dtypes
@pytest.mark.parametrize("shape", [(2, 9, 40), (3, 77), (1, 5, 1280), (2, 9000)], ids=str)
def test_rows(shape, dtype, kind, device):
    x = Maker(device, dtype).rows(*shape)
    x.view(-1, shape[-1])[0] = 0.0
    x.view(-1, shape[-1])[-1, 0] = 1000.0
    q, scale = launch_rows(x, kind)
    expected, expected_scale = quantize_rows_reference(x, kind)
    assert torch.equal(scale, expected_scale) and scale.view(-1)[0] == 1
    assert torch.equal(q.float(), expected.float())
    step = scale * (1 if kind == torch.int8 else 0) / 2 + x.float().abs() / 16 + scale * 2**-10
    assert bool(((q.float() * scale - x.float()).abs() <= step).all())


@on_devices
@of_kinds
@pytest.mark.parametrize("length", [40, 9000])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_shows_in_the_scale(value, length, kind, device):
    x = Maker(device, torch.float16).rows(3, length)
    x[1, 7] = value
    for _, scale in (launch_rows(x, kind), quantize_rows_reference(x, kind)):
        assert scale.isnan().view(-1).tolist() == [False, True, False]


@on_devices
@of_kinds
def test_channels_keep_the_order_of_memory(kind, device):
    make = Maker(device, torch.float16)
    for weight in (make.image(40, 24, 3, 3), make.rows(48, 56), make.image(300, 8, 1, 1)):
        q, scale = launch_channels(weight, kind)
        expected, expected_scale = quantize_channels_reference(weight, kind)
        assert q.stride() == expected.stride() == weight.stride()
        assert torch.equal(scale, expected_scale) and torch.equal(q.float(), expected.float())


@on_devices
@of_kinds
def test_a_tensor_saturates(kind, device):
    x = Maker(device, torch.float16).image(2, 24, 5, 7)
    scale = torch.tensor([1.5 / LARGEST[kind]], device=device)
    q = launch_quantize_tensor(x, scale, kind)
    assert q.stride() == x.stride() and float(q.float().abs().max()) == LARGEST[kind]
    assert torch.equal(q.float(), quantize_tensor_reference(x, scale, kind).float())


@on_devices
def test_ties_go_to_the_even_integer(device):
    """By a multiplication that is not joined with the addition that rounds: 3 * (1 / 6) is less than a half."""
    halves = torch.arange(-127.0, 127.5, 0.5, device=device)
    one = torch.ones(1, device=device)
    for q in (launch_rows(halves[None], torch.int8)[0][0], launch_quantize_tensor(halves, one, torch.int8)):
        assert torch.equal(q.float(), halves.round())
    whole = torch.arange(-700.0, 700.0, device=device)
    for divisor in (6.0, 7.0, 22.0):
        q = launch_quantize_tensor(whole, one * divisor, torch.int8)
        assert torch.equal(q.float(), (whole * (1 / (one * divisor))).round().clamp(-127, 127))


@on_devices
@of_kinds
def test_e4m3_says_what_is_not_finite_and_int8_cannot(kind, device):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0], device=device)
    one = torch.ones(1, device=device)
    for q in (launch_quantize_tensor(x, one, kind), quantised(x, one, kind)):
        said = [True, True, True, False] if kind != torch.int8 else [False] * 4
        assert q.float().isnan().tolist() == said


@on_devices
@of_kinds
@in_dtypes
def test_channels_become_half_precision_again(dtype, kind, device):
    make = Maker(device, torch.float16)
    for weight in (make.image(40, 24, 3, 3), make.rows(48, 56), make.rows(5, 9000)):
        q, scale = launch_channels(weight, kind)
        found, expected = launch_dequantize(q, scale, dtype), dequantize_channels_reference(q, scale, dtype)
        assert found.stride() == expected.stride() == weight.stride()
        # The interpreter cuts bits off where a GPU rounds to bf16. The last line bounds what that costs.
        assert torch.equal(found, expected) or (INTERPRETED and dtype is torch.bfloat16)
        exact = q.double() * scale.double().view(-1, *[1] * (q.dim() - 1))
        assert bool(((found.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps + 1e-7).all())


@on_devices
def test_every_e4m3_number_becomes_itself(device):
    codes = torch.arange(256, dtype=torch.uint8, device=device).view(torch.float8_e4m3fn)
    q = codes[codes.float().isfinite()][None]
    assert torch.equal(launch_dequantize(q, torch.ones(1, device=device), torch.float16).float(), q.float())
