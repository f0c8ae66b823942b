"""What the passes that deal with convolutions share: reading aten.conv2d's arguments, channels-last weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from modules.stable_fast.passes.base import Editor, argument, is_call, shape

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


def read_convolution(node: Any) -> Convolution | None:
    """aten.conv2d as a Convolution; None when it is dilated, grouped or not the same both ways."""
    if not is_call(node, aten.conv2d.default):
        return None
    stride, padding = _pair(argument(node, 3, "stride", 1)), _pair(argument(node, 4, "padding", 0))
    dilation, groups = _pair(argument(node, 5, "dilation", 1)), argument(node, 6, "groups", 1)
    plain = dilation == (1, 1) and groups == 1 and stride[0] == stride[1] and padding[0] == padding[1]
    if not plain or len(shape(node)) != 4:
        return None
    return Convolution(node.args[0], node.args[1], argument(node, 2, "bias"), stride[0], padding[0])


def is_pointwise(node: Any) -> bool:
    """Whether the node is a 1x1 convolution with stride 1: a linear layer over channels."""
    conv = read_convolution(node)
    return conv is not None and shape(conv.weight)[2:] == (1, 1) and conv.stride == 1 and conv.padding == 0


def channels_last_weight(editor: Editor, before: fx.Node, weight: fx.Node) -> fx.Node:
    """The weight with channels innermost (computed in the weights stage; no copy when it already is)."""
    return editor.call(before, aten.contiguous.default, weight, memory_format=torch.channels_last)
