"""8-bit numbers with one known scale for a whole tensor, and the largest magnitude from which it is calibrated."""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import runs_kernels, writes_eight_bits
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.kinds import quantised, reciprocal, rounded_in_kernel
from modules.stable_fast.kernels.triton_import import jit, tl, triton

BLOCK = 2048


def quantize_tensor_reference(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    """x and scale [1] -> q in the memory format of x. What is beyond the range saturates."""
    q = torch.empty_like(x, dtype=kind)
    return q.copy_(quantised(x, scale, kind))


def amax_tensor_reference(x: Tensor) -> Tensor:
    """The largest magnitude in x, as fp32 [1]; NaN if x has one."""
    return x.abs().amax().float().view(1)


def is_dense(x: Tensor) -> bool:
    """Whether `x` is contiguous, or NHWC in memory."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


@jit
def _quantize_tensor_kernel(x_ptr, scale_ptr, q_ptr, elements, INTEGER: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offset, mask=offset < elements, other=0.0).to(tl.float32)
    q = rounded_in_kernel(x * reciprocal(tl.load(scale_ptr)), INTEGER, WITHIN=False)
    tl.store(q_ptr + offset, q, mask=offset < elements)


def launch_quantize_tensor(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    assert runs_kernels(x) and is_dense(x) and scale.numel() == 1
    q = torch.empty_like(x, dtype=kind)
    launch_kernel(
        _quantize_tensor_kernel, (triton.cdiv(x.numel(), BLOCK),),
        x, scale, q, x.numel(), INTEGER=kind == torch.int8, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    return q


def _quantize_tensor(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    reference = partial(quantize_tensor_reference, x, scale, kind)
    if not (writes_eight_bits(x, kind) and is_dense(x)):
        return reference()
    key = (x.numel(), dtype_key(x), str(kind))
    kernels = {"triton": launch_quantize_tensor}
    return run_chosen("quantize_tensor", key, kernels, ("triton",), (x, scale, kind), reference)


def _fake_tensor(x: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=kind)


def _fake_amax(x: Tensor) -> Tensor:
    return x.new_empty(1, dtype=torch.float32)


register("quantize_tensor(Tensor x, Tensor scale, ScalarType kind) -> Tensor", _quantize_tensor, _fake_tensor)
register("amax_tensor(Tensor x) -> Tensor", amax_tensor_reference, _fake_amax)
