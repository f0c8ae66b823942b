"""The device for kernel tests (Triton's interpreter on CPU tensors, or a GPU), and comparison of results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.stable_fast.kernels.triton_import import INTERPRETED

DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Relative to the largest expected value: the rounding error of this dtype, plus a small margin.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

on_devices = pytest.mark.parametrize("device", DEVICES)
in_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp16", "bf16"])

# The interpreter multiplies bfloat16 matrices as if their bits were integers.
in_product_dtypes = pytest.mark.parametrize("dtype", DTYPES[:2] if INTERPRETED else DTYPES, ids=str)


class Maker:
    """Makes operands from a fixed seed, with a device and a dtype."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self._generator = torch.Generator().manual_seed(1)
        self._device, self._dtype = device, dtype

    def rows(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=self._generator)).to(self._device, self._dtype)

    def image(self, *shape: int, scale: float = 1.0) -> Tensor:
        return self.rows(*shape, scale=scale).contiguous(memory_format=torch.channels_last)


def doubled(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if x is None else x.double() for x in tensors]


def assert_near(result: Tensor, expected: Tensor, *, slack: float = 1.0) -> None:
    dtype = result.dtype
    assert result.shape == expected.shape
    if dtype == torch.float32 and result.is_cuda:
        slack *= 200  # TF32 products
    error = float((result.double() - expected).abs().max() / expected.abs().max())
    assert error <= slack * TOLERANCES[dtype], f"relative error {error:.2e}"
