"""Convolution with its epilogue: y = act(conv2d(x, w) + b + vector[:, :, None, None] + residual), NHWC in memory."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels._activations import activate
from modules.stable_fast.kernels._dispatch import channels_last, empty_channels_last, register


def conv2d_epilogue_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    y = F.conv2d(x, weight, bias, stride, padding)
    if vector is not None:
        y = y + vector[:, :, None, None]
    if residual is not None:
        y = y + residual
    return channels_last(activate(y, activation))


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _conv2d_epilogue(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    return conv2d_epilogue_reference(x, weight, bias, vector, residual, stride, padding, activation)


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    height = conv_output_size(x.shape[2], weight.shape[2], stride, padding)
    width = conv_output_size(x.shape[3], weight.shape[3], stride, padding)
    return empty_channels_last((x.shape[0], weight.shape[0], height, width), x)


register(
    "conv2d_epilogue(Tensor x, Tensor weight, Tensor? bias, Tensor? vector, Tensor? residual, int stride, "
    "int padding, str activation) -> Tensor",
    _conv2d_epilogue,
    _fake,
)
