"""Gates against float64, on columns of wider tensors and odd sizes."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.elementwise.gated import launch_gated_activation, launch_gated_add
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, in_dtypes, on_devices


@on_devices
@in_dtypes
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("channels", [40, 77, 1100])
def test_gated_activation_of_halves_and_of_two_tensors(channels, activation, dtype, device):
    make = Maker(device, dtype)
    x, gate = make.rows(2, 3, 2 * channels).chunk(2, dim=-1)
    expected = activate(gate.double(), activation) * x.double()
    assert_near(launch_gated_activation(x, gate, activation), expected, slack=2)
    assert_near(launch_gated_activation(x.contiguous(), gate.contiguous(), activation), expected, slack=2)


@on_devices
def test_heads_that_are_transposed_are_copied(device):
    make = Maker(device, torch.float32)
    x, gate = make.rows(2, 40, 3).transpose(1, 2), make.rows(2, 3, 40)
    assert_near(launch_gated_activation(x, gate, "silu"), activate(gate.double(), "silu") * x.double())


@on_devices
@in_dtypes
def test_gated_add_with_a_gate_for_each_sample(dtype, device):
    make = Maker(device, dtype)
    x, residual = make.rows(3, 7, 77), make.rows(3, 7, 77)
    gate = make.rows(3, 6 * 77).chunk(6, dim=1)[2]
    expected = residual.double() + gate.double()[:, None] * x.double()
    assert_near(launch_gated_add(x, gate, residual), expected, slack=2)


@on_devices
def test_gated_add_that_is_clipped(device):
    make = Maker(device, torch.float16)
    x, residual, gate = make.rows(1, 3, 77), make.rows(1, 3, 77), make.rows(1, 77)
    residual[0, 0, :3] = torch.tensor([float("inf"), float("-inf"), float("nan")])
    y = launch_gated_add(x, gate, residual, 0.5)
    assert y[0, 0, :2].tolist() == [0.5, -0.5] and y[0, 0, 2].isnan()
    expected = (residual.double() + gate.double()[:, None] * x.double()).clamp(-0.5, 0.5)
    assert_near(y[:, 1:], expected[:, 1:])
