"""The kernels' own GELU and its tanh approximation, compared with float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.activations import gelu as gelu_in_kernel
from modules.stable_fast.kernels.activations import gelu_tanh as gelu_tanh_in_kernel
from modules.stable_fast.kernels.triton_import import jit, tl
from tests.stable_fast.kernels.kernel_device import on_devices


@jit
def _gelu_kernel(x_ptr, y_ptr, elements, BLOCK: tl.constexpr):
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < elements
    tl.store(y_ptr + offset, gelu_in_kernel(tl.load(x_ptr + offset, mask=mask)), mask=mask)


@on_devices
def test_gelu_within_a_millionth_of_float64(device):
    dense = torch.linspace(-12, 12, 1_000_003)
    tails = torch.tensor([-3e38, -65504.0, -1e4, -100.0, -40.0, 0.0, 40.0, 100.0, 1e4, 65504.0, 3e38])
    x = torch.cat((dense, tails)).to(device)
    y = torch.empty_like(x)
    _gelu_kernel[(x.numel() + 65535) // 65536,](x, y, x.numel(), BLOCK=65536)
    expected = F.gelu(x.double())
    assert bool(y.isfinite().all())
    assert float(((y - expected).abs() / expected.abs().clamp_min(1.0)).max()) < 1e-6
    assert float((y - expected)[x.abs() > 6].abs().div(expected.abs().clamp_min(1.0)[x.abs() > 6]).max()) < 1e-7


@jit
def _gelu_tanh_kernel(x_ptr, y_ptr, elements, BLOCK: tl.constexpr):
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < elements
    tl.store(y_ptr + offset, gelu_tanh_in_kernel(tl.load(x_ptr + offset, mask=mask)), mask=mask)


@on_devices
def test_gelu_tanh_within_a_millionth_of_float64(device):
    x = torch.cat((torch.linspace(-12, 12, 65_000), torch.tensor([-3e38, -65504.0, 0.0, 65504.0, 3e38]))).to(device)
    y = torch.empty_like(x)
    _gelu_tanh_kernel[1,](x, y, x.numel(), BLOCK=65536)
    expected = F.gelu(x.double(), approximate="tanh")
    assert bool(y.isfinite().all())
    assert float(((y - expected).abs() / expected.abs().clamp_min(1.0)).max()) < 1e-6
