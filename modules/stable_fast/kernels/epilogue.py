"""The elementwise operations after a product or an NHWC convolution, in one in-place pass, and GEGLU's product.

`launch_epilogue`: y = act(y + bias + vector[sample] + residual), or act(...) + residual with `residual_last`.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.activations import ACTIVATIONS, activate_in_kernel, gelu
from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import require_32_bit
from modules.stable_fast.kernels.triton_import import jit, tl, triton

BLOCK = 2048


@jit
def _epilogue_kernel(
    y_ptr, bias_ptr, vector_ptr, residual_ptr, elements, C, per_sample, vector_stride,
    HAS_BIAS: tl.constexpr, HAS_VECTOR: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RESIDUAL_LAST: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < elements
    channel = offset % C
    y = tl.load(y_ptr + offset, mask=mask).to(tl.float32)
    if HAS_BIAS:
        y += tl.load(bias_ptr + channel, mask=mask).to(tl.float32)
    if HAS_VECTOR:
        sample = offset // per_sample
        y += tl.load(vector_ptr + sample * vector_stride + channel, mask=mask).to(tl.float32)
    if HAS_RESIDUAL:
        residual = tl.load(residual_ptr + offset, mask=mask).to(tl.float32)
        if RESIDUAL_LAST:
            y = activate_in_kernel(y, ACTIVATION) + residual
        else:
            y = activate_in_kernel(y + residual, ACTIVATION)
    else:
        y = activate_in_kernel(y, ACTIVATION)
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_epilogue(
    y: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    activation: str,
    *,
    residual_last: bool = False,
) -> Tensor:
    """Changes `y` in place and returns it. y and residual are dense, with channels innermost in memory."""
    channels = y.shape[1] if y.dim() == 4 else y.shape[-1]
    layout = torch.channels_last if y.dim() == 4 else torch.contiguous_format
    assert runs_kernels(y) and (vector is None or y.dim() == 4)
    require_32_bit(y)
    assert y.is_contiguous(memory_format=layout), f"y must have its channels innermost, has strides {y.stride()}"
    assert residual is None or (residual.is_contiguous(memory_format=layout) and residual.shape == y.shape)
    assert bias is None or (bias.is_contiguous() and bias.numel() == channels)
    assert vector is None or (vector.stride(1) == 1 and vector.shape[0] in (1, y.shape[0]))
    if bias is None and vector is None and residual is None and activation == "none":
        return y
    launch_kernel(
        _epilogue_kernel, (triton.cdiv(y.numel(), BLOCK),),
        y, y if bias is None else bias, y if vector is None else vector, y if residual is None else residual,
        y.numel(), channels, y.numel() // y.shape[0],
        0 if vector is None or vector.shape[0] == 1 else vector.stride(0),
        HAS_BIAS=bias is not None, HAS_VECTOR=vector is not None, HAS_RESIDUAL=residual is not None,
        RESIDUAL_LAST=residual_last, ACTIVATION=ACTIVATIONS[activation], BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    return y


@jit
def geglu_kernel(h_ptr, y_ptr, elements, I, BLOCK: tl.constexpr):  # noqa: E741
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < elements
    source = (offset // I).to(tl.int64) * (2 * I) + offset % I
    value = tl.load(h_ptr + source, mask=mask)
    tl.debug_barrier()  # otherwise ptxas loads the values only after it has computed the gates' GELU
    gate = tl.load(h_ptr + source + I, mask=mask).to(tl.float32)
    tl.store(y_ptr + offset, (value.to(tl.float32) * gelu(gate)).to(y_ptr.dtype.element_ty), mask=mask)


def launch_geglu(h: Tensor) -> Tensor:
    """h [..., 2 I] -> value * gelu(gate), [..., I]."""
    inner = h.shape[-1] // 2
    assert runs_kernels(h) and h.is_contiguous()
    require_32_bit(h)
    y = h.new_empty((*h.shape[:-1], inner))
    launch_kernel(geglu_kernel, (triton.cdiv(y.numel(), BLOCK),), h, y, y.numel(), inner, BLOCK=BLOCK, num_warps=8)
    return y
