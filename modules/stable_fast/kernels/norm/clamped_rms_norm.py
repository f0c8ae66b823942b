"""RMSNorm of a tensor that is first clamped if an infinity is in it: (clamped, norm). See clamp_infinities.

T5 clamps after each residual addition in fp16, and the next layer starts with the norm.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.norm.clamp_infinities import (
    clamp_infinities_reference,
    clamped_if_flagged,
    flags_block,
    launch_flags,
)
from modules.stable_fast.kernels.norm.rms_norm import rms_norm_reference
from modules.stable_fast.kernels.norm.row_tiles import MAX_CHANNELS, fits_rows, row_tiles, rows_key
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, tl


def clamped_rms_norm_reference(x: Tensor, weight: Tensor | None, eps: float, most: float) -> tuple[Tensor, Tensor]:
    clamped = clamp_infinities_reference(x, most)
    return clamped, rms_norm_reference(clamped, weight, eps)


@jit_for_any("rows", "flags")
def _clamped_norm_kernel(
    x_ptr, flags_ptr, w_ptr, clamped_ptr, y_ptr, rows, C, flags, eps, most,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, FLAGS: tl.constexpr, WEIGHT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_C)
    inside = column < C
    mask = (row < rows)[:, None] & inside[None, :]
    offset = row[:, None] * C + column[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    x = clamped_if_flagged(x, flags_ptr, flags, most, FLAGS)
    tl.store(clamped_ptr + offset, x.to(clamped_ptr.dtype.element_ty), mask=mask)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / C + eps)[:, None]
    if WEIGHT:
        weight = tl.load(w_ptr + column, mask=inside, other=0.0).to(tl.float32)
        y = y.to(y_ptr.dtype.element_ty).to(tl.float32) * weight[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_clamped_rms_norm(x: Tensor, weight: Tensor | None, eps: float, most: float) -> tuple[Tensor, Tensor]:
    """x [..., C], contiguous. `most` is a value of its dtype."""
    channels = x.shape[-1]
    assert channels <= MAX_CHANNELS
    assert weight is None or (weight.is_contiguous() and weight.numel() == channels and weight.dtype == x.dtype)
    tiles, flags = row_tiles(x), launch_flags(x)
    clamped, y = torch.empty_like(x), torch.empty_like(x)
    launch_kernel(
        _clamped_norm_kernel, tiles.grid,
        x, flags, x if weight is None else weight, clamped, y, tiles.rows, channels, len(flags), eps, most,
        ROWS=tiles.per_program, BLOCK_C=tiles.block, FLAGS=flags_block(flags), WEIGHT=weight is not None,
        num_warps=tiles.warps,
    )  # fmt: skip
    return clamped, y


_IMPLEMENTATIONS = {"triton": launch_clamped_rms_norm}


def _clamped_rms_norm(x: Tensor, weight: Tensor | None, eps: float, most: float) -> tuple[Tensor, Tensor]:
    args = (x.contiguous(), weight, eps, most)
    if not fits_rows(x):
        return clamped_rms_norm_reference(*args)
    reference = partial(clamped_rms_norm_reference, *args)
    return run_chosen("clamped_rms_norm", rows_key(x), _IMPLEMENTATIONS, ("triton",), args, reference)


def _fake(x: Tensor, weight: Tensor | None, eps: float, most: float) -> tuple[Tensor, Tensor]:
    return _fake_one(x), _fake_one(x)


def _fake_one(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


register(
    "clamped_rms_norm(Tensor x, Tensor? weight, float eps, float most) -> (Tensor, Tensor)", _clamped_rms_norm, _fake
)
