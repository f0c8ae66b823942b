"""1x1 convolution over the virtual concatenation [a | b] along channels: y = W [a; b] + bias + residual, NHWC in memory.

The concatenation is never made: it is two GEMMs, the second accumulating onto the first.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels._dispatch import channels_last, empty_channels_last, register


def conv2d_cat_epilogue_reference(
    a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None
) -> Tensor:
    split = a.shape[1]
    y = F.conv2d(a, weight[:, :split], bias) + F.conv2d(b, weight[:, split:])
    return channels_last(y if residual is None else y + residual)


def _conv2d_cat_epilogue(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    return conv2d_cat_epilogue_reference(a, b, weight, bias, residual)


def _fake(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    return empty_channels_last((a.shape[0], weight.shape[0], *a.shape[2:]), a)


register(
    "conv2d_cat_epilogue(Tensor a, Tensor b, Tensor weight, Tensor? bias, Tensor? residual) -> Tensor",
    _conv2d_cat_epilogue,
    _fake,
)
