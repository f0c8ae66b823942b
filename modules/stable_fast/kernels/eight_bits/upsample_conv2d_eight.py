"""Nearest 2x upsampling and a 3x3 convolution of 8-bit numbers, as four 2x2 convolutions (see upsample_conv2d.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.conv.upsample_conv2d import upsample_conv2d_reference
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.registry import register


def upsample_conv2d_eight_reference(
    q: Tensor, scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """q [B, C, H, W]; scale [1]; weight_q [4 N, C, 2, 2] and weight_scale [4 N], of a prepared weight; bias [N]."""
    weight = weight_q.float() * weight_scale[:, None, None, None]
    y = upsample_conv2d_reference(q.float() * scale, weight, None if bias is None else bias.float())
    return to_channels_last(y.to(dtype))


def _upsample_conv2d_eight(
    q: Tensor, scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return upsample_conv2d_eight_reference(q, scale, weight_q, weight_scale, bias, dtype)


def _fake(
    q: Tensor, scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    shape = (q.shape[0], weight_q.shape[0] // 4, 2 * q.shape[2], 2 * q.shape[3])
    return torch.empty(shape, dtype=dtype, device=q.device, memory_format=torch.channels_last)


register(
    "upsample_conv2d_eight(Tensor q, Tensor scale, Tensor weight_q, Tensor weight_scale, Tensor? bias, "
    "ScalarType dtype) -> Tensor",
    _upsample_conv2d_eight,
    _fake,
)
