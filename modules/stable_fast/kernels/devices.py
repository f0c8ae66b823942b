"""Capabilities of a tensor's device: which kernels it runs, and how many multiprocessors it has."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from modules.stable_fast.kernels.triton_import import HAS_TRITON, INTERPRETED


@cache
def _capability(device_index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device_index)


@cache
def _multiprocessors(device_index: int) -> int:
    return torch.cuda.get_device_properties(device_index).multi_processor_count


def uses_kernels(x: Tensor) -> bool:
    """Whether the Triton, cuDNN and cuBLAS implementations apply. Elsewhere the plain PyTorch reference runs."""
    if not (x.is_cuda and HAS_TRITON) or torch.version.hip is not None or x.numel() == 0:
        return False
    capability = _capability(x.device.index)
    if x.dtype == torch.float16:
        return capability >= (7, 5)
    return x.dtype == torch.bfloat16 and capability >= (8, 0)


def runs_kernels(x: Tensor) -> bool:
    """Whether a Triton kernel can be launched on this tensor: on CUDA, or on any device under the interpreter."""
    return x.is_cuda or INTERPRETED


def is_ampere_or_newer(x: Tensor) -> bool:
    """Compute capability 8 or higher, which flash attention and Triton's matrix products need."""
    return _capability(x.device.index) >= (8, 0)


def is_hopper(x: Tensor) -> bool:
    """Compute capability 9, which has warpgroup matrix products (wgmma). Newer generations dropped them."""
    return x.is_cuda and _capability(x.device.index)[0] == 9


def runs_tma_kernels(x: Tensor) -> bool:
    """Whether our kernels that copy whole tiles by descriptor (TMA) run. Newer GPUs have TMA, but are untested."""
    return INTERPRETED or is_hopper(x)


def overlaps_launches(x: Tensor) -> bool:
    """Whether a kernel may start before the previous one ends, and wait for its results (programmatic launch)."""
    return x.is_cuda and _capability(x.device.index) >= (9, 0)


def multiprocessors(x: Tensor) -> int:
    """How many multiprocessors share the work; 8 under the interpreter."""
    return _multiprocessors(x.device.index) if x.is_cuda else 8
