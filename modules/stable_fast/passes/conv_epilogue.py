"""A convolution and what is added to its result become lightdiffusion.conv2d_epilogue.

conv2d + bias, then + vector[:, :, None, None] (the time embedding), then + residual of the same shape, then SiLU, each
if it is there and nothing else reads the value before it. Not matched: dilated or grouped convolutions; 1x1 ones (they
are linear layers, see tokens.py); an addition that happens at a later stage than the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from modules.stable_fast.passes.base import Editor, FusionPass, Rule, is_call, is_tensor, only_user, same_stage, shape
from modules.stable_fast.passes.convolutions import channels_last_weight, is_pointwise, read_convolution

aten = torch.ops.aten
CONV2D_EPILOGUE = torch.ops.lightdiffusion.conv2d_epilogue.default
VECTOR, RESIDUAL, ACTIVATION = 3, 4, 7  # positions of its arguments


def fuse_convolution(editor: Editor, node: fx.Node) -> bool:
    conv = read_convolution(node)
    if conv is None or is_pointwise(node):
        return False
    weight = channels_last_weight(editor, node, conv.weight)
    args = (conv.x, weight, conv.bias, None, None, conv.stride, conv.padding, "none")
    editor.replace(node, editor.call(node, CONV2D_EPILOGUE, *args))
    return True


def _open_convolution(node: Any, user: fx.Node) -> bool:
    """Whether `node` is a fused convolution that `user`, its only reader, may join."""
    is_open = is_call(node, CONV2D_EPILOGUE) and node.args[RESIDUAL] is None and node.args[ACTIVATION] == "none"
    return is_open and only_user(node) is user and same_stage(node, user)


def _join(editor: Editor, conv: fx.Node, user: fx.Node, position: int, value: Any) -> None:
    args = list(conv.args)
    args[position] = value
    editor.replace(user, editor.call(user, CONV2D_EPILOGUE, *args))


def _as_vector(node: Any, channels: int) -> fx.Node | None:
    """The [N, C] value behind a reshape to [N, C, 1, 1]."""
    if not is_call(node, aten.reshape.default) or shape(node)[1:] != (channels, 1, 1):
        return None
    return node.args[0] if shape(node.args[0]) == shape(node)[:2] else None


def add_vector(editor: Editor, add: fx.Node) -> bool:
    for conv, other in (add.args[:2], add.args[1::-1]):
        if _open_convolution(conv, add) and conv.args[VECTOR] is None and not add.kwargs:
            vector = _as_vector(other, shape(conv)[1])
            if vector is not None:
                _join(editor, conv, add, VECTOR, vector)
                return True
    return False


def add_residual(editor: Editor, add: fx.Node) -> bool:
    for conv, other in (add.args[1::-1], add.args[:2]):
        if _open_convolution(conv, add) and is_tensor(other) and shape(other) == shape(conv) and not add.kwargs:
            _join(editor, conv, add, RESIDUAL, other)
            return True
    return False


def add_silu(editor: Editor, silu: fx.Node) -> bool:
    conv = silu.args[0]
    is_open = is_call(conv, CONV2D_EPILOGUE) and conv.args[ACTIVATION] == "none"
    if not is_open or only_user(conv) is not silu or not same_stage(conv, silu):
        return False
    _join(editor, conv, silu, ACTIVATION, "silu")
    return True


PASS = FusionPass(
    "conv_epilogue",
    (
        Rule("convolution", (aten.conv2d.default,), fuse_convolution),
        Rule("vector", (aten.add.Tensor,), add_vector),
        Rule("residual", (aten.add.Tensor,), add_residual),
        Rule("silu", (aten.silu.default,), add_silu),
    ),
)
