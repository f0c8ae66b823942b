"""Gates: y = act(gate) * x (SwiGLU), and y = residual + gate * x with one gate for each sample (adaLN-Zero).

The latter may be clipped to [-most, most], as Flux clips it in fp16.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.activations import ACTIVATIONS, activate, activate_in_kernel
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import runs_kernels, uses_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, tl, triton

BLOCK = 1024


def gated_activation_reference(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    return activate(gate, activation) * x


def gated_add_reference(x: Tensor, gate: Tensor, residual: Tensor, most: float | None = None) -> Tensor:
    """x and residual [B, L, C]; gate [B, C]."""
    y = residual + gate[:, None] * x
    return y if most is None else y.clamp(-most, most)


@jit_for_any("rows")
def _gated_activation_kernel(
    x_ptr, gate_ptr, y_ptr, rows, C, x_stride, gate_stride, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < C
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=inside).to(tl.float32)
    x = tl.load(x_ptr + row * x_stride + column, mask=inside).to(tl.float32)
    y = activate_in_kernel(gate, ACTIVATION) * x
    tl.store(y_ptr + row * C + column, y.to(y_ptr.dtype.element_ty), mask=inside)


def _rows(x: Tensor) -> Tensor:
    """[..., C] as rows with one stride: a view of columns of a wider tensor, or a copy."""
    return x.reshape(-1, x.shape[-1]) if x.stride(-1) == 1 else x.contiguous().view(-1, x.shape[-1])


def launch_gated_activation(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    """x and gate [..., C], which may be columns of a wider tensor."""
    assert runs_kernels(x) and x.shape == gate.shape and x.dtype == gate.dtype
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    flat, gates, channels = _rows(x), _rows(gate), x.shape[-1]
    launch_kernel(
        _gated_activation_kernel, (len(flat), triton.cdiv(channels, BLOCK)),
        flat, gates, y, len(flat), channels, flat.stride(0), gates.stride(0),
        ACTIVATION=ACTIVATIONS[activation], BLOCK=BLOCK,
    )  # fmt: skip
    return y


@jit_for_any("elements", "per_sample")
def _gated_add_kernel(
    x_ptr, gate_ptr, residual_ptr, y_ptr, elements, per_sample, C, gate_stride, most,
    CLIP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < elements
    gate = tl.load(gate_ptr + offset // per_sample * gate_stride + offset % C, mask=mask).to(tl.float32)
    x = tl.load(x_ptr + offset, mask=mask).to(tl.float32)
    y = tl.load(residual_ptr + offset, mask=mask).to(tl.float32) + gate * x
    if CLIP:
        y = tl.where(y > most, most, tl.where(y < -most, -most, y))  # NaN stays NaN
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_gated_add(x: Tensor, gate: Tensor, residual: Tensor, most: float | None = None) -> Tensor:
    """x and residual [B, L, C], contiguous; gate [B, C], which may be columns of a wider tensor."""
    assert runs_kernels(x) and x.is_contiguous() and residual.is_contiguous() and gate.stride(1) == 1
    assert residual.shape == x.shape and gate.shape == (x.shape[0], x.shape[2]) and x.dtype == gate.dtype
    y = torch.empty_like(x)
    launch_kernel(
        _gated_add_kernel, (triton.cdiv(x.numel(), BLOCK),),
        x, gate, residual, y, x.numel(), x.shape[1] * x.shape[2], x.shape[2], gate.stride(0),
        0.0 if most is None else most, CLIP=most is not None, BLOCK=BLOCK,
    )  # fmt: skip
    return y


def _gated_activation(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    reference = partial(gated_activation_reference, x, gate, activation)
    if not uses_kernels(x):
        return reference().contiguous()
    key, table = (x.numel(), x.shape[-1], activation, dtype_key(x)), {"triton": launch_gated_activation}
    return run_chosen("gated_activation", key, table, ("triton",), (x, gate, activation), reference)


def _gated_add(x: Tensor, gate: Tensor, residual: Tensor, most: float | None = None) -> Tensor:
    args = (x.contiguous(), gate, residual.contiguous(), most)
    reference = partial(gated_add_reference, *args)
    if not uses_kernels(x):
        return reference()
    return run_chosen("gated_add", (*x.shape, dtype_key(x)), {"triton": launch_gated_add}, ("triton",), args, reference)


def _fake(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_add(x: Tensor, gate: Tensor, residual: Tensor, most: float | None = None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


register("gated_activation(Tensor x, Tensor gate, str activation) -> Tensor", _gated_activation, _fake)
register("gated_add(Tensor x, Tensor gate, Tensor residual, float? most=None) -> Tensor", _gated_add, _fake_add)
