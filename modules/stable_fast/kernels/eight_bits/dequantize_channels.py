"""A weight in half precision from 8-bit numbers with a scale for each output channel, just before it is needed.

The kernel reads e4m3 by its bits, so it runs on cards that have no such type.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import runs_kernels, writes_half
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, next_power_of_2, tl, triton

BLOCK = 4096  # numbers for one program


def dequantize_channels_reference(q: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """q [N, ...] and scale [N] -> q * scale in q's memory format, multiplied in fp32."""
    weight = q.to(dtype)  # exact, since every 8-bit number is one in half precision
    return torch.mul(weight, scale.view(-1, *[1] * (q.dim() - 1)), out=weight)


@jit_for_any("columns")
def _dequantize_kernel(q_ptr, scale_ptr, weight_ptr, columns, INTEGER: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    q = tl.load(q_ptr + row * columns + column, mask=mask)
    if INTEGER:
        q = q.to(tl.float32)
    else:
        # fp16 has one more bit for the exponent. Its bias is larger by 8, also for what is nearly zero.
        bits = q.to(tl.int16)  # with copies of the sign's bit above it
        bits = (bits & -32768) | ((bits & 127) << 7)
        q = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    weight = q * tl.load(scale_ptr + row)
    tl.store(weight_ptr + row * columns + column, weight.to(weight_ptr.dtype.element_ty), mask=mask)


def launch_dequantize(q: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    weight = torch.empty_like(q, dtype=dtype)
    columns = q.numel() // len(q)
    assert runs_kernels(q) and scale.is_contiguous() and len(scale) == len(q)
    assert q.stride(0) == columns and weight.stride() == q.stride(), "rows must lie one after another in memory"
    block = min(BLOCK, next_power_of_2(columns))
    launch_kernel(
        _dequantize_kernel, (len(q), triton.cdiv(columns, block)), q.view(torch.int8), scale, weight, columns,
        INTEGER=q.dtype == torch.int8, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return weight


def _dequantize_channels(q: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    if not writes_half(q, dtype):
        return dequantize_channels_reference(q, scale, dtype)
    key = (len(q), q.numel() // len(q), dtype_key(q), str(dtype).removeprefix("torch."))
    reference = partial(dequantize_channels_reference, q, scale, dtype)
    return run_chosen(
        "dequantize_channels", key, {"triton": launch_dequantize}, ("triton",), (q, scale, dtype), reference
    )


def _fake(q: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(q, dtype=dtype)


register("dequantize_channels(Tensor q, Tensor scale, ScalarType dtype) -> Tensor", _dequantize_channels, _fake)
