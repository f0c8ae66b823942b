"""Helpers for passes over convolutions: parsing aten.conv2d, and weights in channels-last memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments
from modules.stable_fast.passes.base import Editor, is_call, shape

aten = torch.ops.aten


class Convolution(NamedTuple):
    """A plain square convolution."""

    x: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    stride: int
    padding: int


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def read_convolution(node: object) -> Convolution | None:
    """aten.conv2d as a Convolution; None if it is dilated, grouped, or not square."""
    if not is_call(node, aten.conv2d.default):
        return None
    given = arguments(node)
    stride, padding = _pair(given.stride), _pair(given.padding)
    plain = _pair(given.dilation) == (1, 1) and given.groups == 1
    plain = plain and stride[0] == stride[1] and padding[0] == padding[1]
    if not plain or len(shape(node)) != 4:
        return None
    return Convolution(given.input, given.weight, given.bias, stride[0], padding[0])


def is_pointwise(node: object) -> bool:
    """Whether the node is a 1x1 convolution with stride 1: a linear layer over channels."""
    conv = read_convolution(node)
    return conv is not None and shape(conv.weight)[2:] == (1, 1) and conv.stride == 1 and conv.padding == 0


def channels_last_weight(editor: Editor, before: fx.Node, weight: fx.Node) -> fx.Node:
    """The weight with its channels innermost, computed in the weights stage, without a copy if nothing changes."""
    return editor.call(before, aten.contiguous.default, weight, memory_format=torch.channels_last)
