"""Convolution of 8-bit numbers with its epilogue, NHWC in memory.

y = act(conv2d(q, w) * scale * weight_scale[:, None, None] + bias + vector[:, :, None, None] + residual)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.conv.conv2d_epilogue import conv_output_size
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.registry import register


def conv2d_eight_reference(
    q: Tensor,
    scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """q [B, C, H, W]; scale [1]; weight_q [N, C, kh, kw]; weight_scale and bias [N]; vector [B or 1, N]."""
    y = F.conv2d(q.float(), weight_q.float(), None, stride, padding) * scale * weight_scale[:, None, None]
    if bias is not None:
        y = y + bias[:, None, None]
    if vector is not None:
        y = y + vector[:, :, None, None]
    if residual is not None:
        y = y + residual
    return to_channels_last(activate(y, activation).to(dtype))


def _conv2d_eight(
    q: Tensor,
    scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    return conv2d_eight_reference(
        q, scale, weight_q, weight_scale, bias, vector, residual, stride, padding, activation, dtype
    )


def _fake(
    q: Tensor,
    scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    height = conv_output_size(q.shape[2], weight_q.shape[2], stride, padding)
    width = conv_output_size(q.shape[3], weight_q.shape[3], stride, padding)
    shape = (q.shape[0], weight_q.shape[0], height, width)
    return torch.empty(shape, dtype=dtype, device=q.device, memory_format=torch.channels_last)


register(
    "conv2d_eight(Tensor q, Tensor scale, Tensor weight_q, Tensor weight_scale, Tensor? bias, Tensor? vector, "
    "Tensor? residual, int stride, int padding, str activation, ScalarType dtype) -> Tensor",
    _conv2d_eight,
    _fake,
)
