"""Clamps a tensor if an infinity is in it: to [-most, most] all of it, as T5 does after each of its layers in fp16.

Without an infinity nothing changes. One launch looks for infinities and leaves a flag for each program. The next one
reads all flags. So no value goes to the CPU, and no flag has to be cleared.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import runs_kernels, uses_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit, jit_for_any, next_power_of_2, tl, triton

BLOCK = 4096
MOST_FLAGS = 1024  # every program of the second launch reads them all


def clamp_infinities_reference(x: Tensor, most: float) -> Tensor:
    return torch.where(x.isinf().any(), x.clamp(-most, most), x)


@jit_for_any("elements", "blocks")
def _flags_kernel(x_ptr, flags_ptr, elements, blocks, BLOCK: tl.constexpr):
    """Each program takes `blocks` blocks in a row. Its flag is 1 if one of their values is infinite, else 0."""
    found = tl.zeros((BLOCK,), dtype=tl.int32)
    first = tl.program_id(0).to(tl.int64) * blocks
    for block in range(0, blocks):
        offset = (first + block) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offset, mask=offset < elements, other=0.0).to(tl.float32)
        found |= (tl.abs(x) == float("inf")).to(tl.int32)
    tl.store(flags_ptr + tl.program_id(0), tl.max(found, axis=0))


@jit
def clamped_if_flagged(x, flags_ptr, flags, most, FLAGS: tl.constexpr):
    """x in fp32, clamped if any of the flags is set. NaN stays NaN."""
    place = tl.arange(0, FLAGS)
    found = tl.max(tl.load(flags_ptr + place, mask=place < flags, other=0), axis=0)
    clamped = tl.where(x > most, most, tl.where(x < -most, -most, x))
    return tl.where(found > 0, clamped, x)


@jit_for_any("elements", "flags")
def _clamp_kernel(x_ptr, flags_ptr, y_ptr, elements, flags, most, FLAGS: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < elements
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    y = clamped_if_flagged(x, flags_ptr, flags, most, FLAGS)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_flags(x: Tensor) -> Tensor:
    """At most MOST_FLAGS flags for the contiguous tensor. If none is set, no value is infinite."""
    assert runs_kernels(x) and x.is_contiguous()
    blocks = triton.cdiv(triton.cdiv(x.numel(), BLOCK), MOST_FLAGS)
    programs = triton.cdiv(x.numel(), BLOCK * blocks)
    flags = torch.empty(programs, dtype=torch.int32, device=x.device)
    launch_kernel(_flags_kernel, (programs,), x, flags, x.numel(), blocks, BLOCK=BLOCK, num_warps=8)
    return flags


def flags_block(flags: Tensor) -> int:
    return next_power_of_2(len(flags))


def launch_clamp_infinities(x: Tensor, most: float) -> Tensor:
    """x may have any shape, and is contiguous. `most` is a value of its dtype."""
    flags, y = launch_flags(x), torch.empty_like(x)
    launch_kernel(
        _clamp_kernel, (triton.cdiv(x.numel(), BLOCK),),
        x, flags, y, x.numel(), len(flags), most, FLAGS=flags_block(flags), BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    return y


def _clamp_infinities(x: Tensor, most: float) -> Tensor:
    args = (x.contiguous(), most)
    reference = partial(clamp_infinities_reference, *args)
    if not uses_kernels(x):
        return reference()
    key, table = (x.numel(), dtype_key(x)), {"triton": launch_clamp_infinities}
    return run_chosen("clamp_infinities", key, table, ("triton",), args, reference)


def _fake(x: Tensor, most: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


register("clamp_infinities(Tensor x, float most) -> Tensor", _clamp_infinities, _fake)
