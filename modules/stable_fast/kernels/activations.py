"""The activations that an epilogue can apply: by name in PyTorch, by number in the Triton kernels."""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.triton_import import FAST_MATH, jit, libdevice, tl

# The kernels take the number as their ACTIVATION constant.
ACTIVATIONS = {"none": 0, "silu": 1, "gelu": 2, "quick_gelu": 3, "gelu_tanh": 4}


def activate(x: Tensor, activation: str) -> Tensor:
    if activation == "none":
        return x
    if activation == "silu":
        return F.silu(x)
    if activation == "gelu":
        return F.gelu(x)
    if activation == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if activation == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")


@jit
def silu_in_kernel(x):
    """x * sigmoid(x) in fp32."""
    if FAST_MATH:
        return libdevice.fast_dividef(x, 1.0 + libdevice.fast_expf(-x))
    return x * tl.sigmoid(x)


@jit
def gelu(x):
    """Exact (erf) GELU in fp32, within 6e-7: max(x, 0) - |x| Phi(-|x|), with Phi(-|x|) = 2^p(|x|).

    p is a polynomial fitted to log2 Phi(-|x|) by weighted least squares, with weights that minimise the largest
    error of the result. p keeps decreasing, so the tail goes to zero. Each value takes one exponential and five
    multiplications. tl.erf would take half as long as the preceding matrix product.
    """
    a = tl.abs(x)
    p = tl.fma(a, -0.00048760781646706164, 0.007194249425083399)
    p = tl.fma(p, a, -0.05213136225938797)
    p = tl.fma(p, a, -0.4596203863620758)
    p = tl.fma(p, a, -1.150982141494751)
    p = tl.fma(p, a, -1.0000051259994507)
    return tl.fma(a, -tl.exp2(p), tl.maximum(x, 0.0))


@jit
def gelu_tanh(x):
    """GELU's tanh approximation in fp32: 0.5 x (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@jit
def activate_in_kernel(x, ACTIVATION: tl.constexpr):
    """Applies the activation with this number in ACTIVATIONS to fp32 values."""
    if ACTIVATION == 1:
        x = silu_in_kernel(x)
    elif ACTIVATION == 2:
        x = gelu(x)
    elif ACTIVATION == 3:
        x = x * tl.sigmoid(1.702 * x)
    elif ACTIVATION == 4:
        x = gelu_tanh(x)
    return x
