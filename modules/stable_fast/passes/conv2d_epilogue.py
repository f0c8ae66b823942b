"""A convolution and the additions to its result become lightdiffusion.conv2d_epilogue.

Fuses the bias, then vector[:, :, None, None] (the time embedding), then a residual of the same shape, then SiLU. Each
is fused if nothing else reads the value before it. Not matched: dilated or grouped convolutions; 1x1 convolutions,
which become linear layers (see tokens.py); an addition at a later stage than the convolution.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    either_way,
    is_call,
    is_tensor,
    only_user,
    same_stage,
    shape,
)
from modules.stable_fast.passes.convolutions import channels_last_weight, is_pointwise, read_convolution

aten = torch.ops.aten
CONV2D_EPILOGUE = torch.ops.lightdiffusion.conv2d_epilogue.default


def fuse_convolution(editor: Editor, node: fx.Node) -> bool:
    conv = read_convolution(node)
    if conv is None or is_pointwise(node):
        return False
    weight = channels_last_weight(editor, node, conv.weight)
    args = (conv.x, weight, conv.bias, None, None, conv.stride, conv.padding, "none")
    editor.replace(node, editor.call(node, CONV2D_EPILOGUE, *args))
    return True


def _may_join(user: fx.Node, node: object) -> TypeGuard[fx.Node]:
    """Whether `node` is a fused convolution without activation, and `user` its only reader."""
    if not is_call(node, CONV2D_EPILOGUE) or arguments(node).activation != "none":
        return False
    return only_user(node) is user and same_stage(node, user)


def _as_vector(node: object, channels: int) -> fx.Node | None:
    """The [N, C] value before a reshape to [N, C, 1, 1]."""
    if not is_call(node, aten.reshape.default) or shape(node)[1:] != (channels, 1, 1):
        return None
    vector = source_of(node)
    return vector if shape(vector) == shape(node)[:2] else None


def add_vector(editor: Editor, add: fx.Node) -> bool:
    for conv, other in either_way(add):
        if add.kwargs or not _may_join(add, conv):
            continue
        vector, given = _as_vector(other, shape(conv)[1]), arguments(conv)
        if vector is not None and given.vector is None and given.residual is None:
            editor.replace(add, editor.call_changed(add, conv, vector=vector))
            return True
    return False


def add_residual(editor: Editor, add: fx.Node) -> bool:
    for other, conv in either_way(add):
        if add.kwargs or not _may_join(add, conv) or arguments(conv).residual is not None:
            continue
        if is_tensor(other) and shape(other) == shape(conv):
            editor.replace(add, editor.call_changed(add, conv, residual=other))
            return True
    return False


def add_silu(editor: Editor, silu: fx.Node) -> bool:
    conv = source_of(silu)
    if not _may_join(silu, conv):
        return False
    editor.replace(silu, editor.call_changed(silu, conv, activation="silu"))
    return True


PASS = FusionPass(
    "conv2d_epilogue",
    (
        Rule("convolution", (aten.conv2d.default,), fuse_convolution),
        Rule("vector", (aten.add.Tensor,), add_vector),
        Rule("residual", (aten.add.Tensor,), add_residual),
        Rule("silu", (aten.silu.default,), add_silu),
    ),
)
