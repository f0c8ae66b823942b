"""Moves between feature map and tokens become views, and 1x1 convolutions become linear layers over tokens.

With channels-last memory, permute + reshape from [N, C, h, w] to [N, h*w, C] and back moves no data (layout.py). A
pointwise convolution becomes aten.linear over tokens. Two opposite views in a row cancel. An addition to the image of a
linear layer happens on its tokens instead, so that the layer can absorb it. Not matched: other permutations, and
convolutions with a larger kernel.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.graph.layout import as_image, as_tokens
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
from modules.stable_fast.passes.convolutions import is_pointwise, read_convolution

aten = torch.ops.aten


def _permuted(node: fx.Node, order: list[int]) -> fx.Node | None:
    """The x of permute(x, order)."""
    return source_of(node) if is_call(node, aten.permute.default) and list(arguments(node).dims) == order else None


def _reshaped(node: fx.Node | None) -> fx.Node | None:
    """The x of reshape(x, ...)."""
    return source_of(node) if is_call(node, aten.reshape.default) else None


def flatten_to_tokens(editor: Editor, node: fx.Node) -> bool:
    """reshape(permute(x, [0, 2, 3, 1]), [N, h*w, C]) or permute(reshape(x, [N, C, h*w]), [0, 2, 1])."""
    if node.target == aten.reshape.default:
        x = _permuted(source_of(node), [0, 2, 3, 1])
    else:
        x = _reshaped(_permuted(node, [0, 2, 1]))
    if x is None or len(shape(x)) != 4 or is_call(x, aten.permute.default):
        return False
    batch, channels, height, width = shape(x)
    if shape(node) != (batch, height * width, channels):
        return False
    editor.replace(node, editor.call(node, as_tokens, x))
    return True


def restore_image(editor: Editor, node: fx.Node) -> bool:
    """permute(reshape(t, [N, h, w, C]), [0, 3, 1, 2]) or reshape(permute(t, [0, 2, 1]), [N, C, h, w])."""
    if node.target == aten.reshape.default:
        tokens = _permuted(source_of(node), [0, 2, 1])
    else:
        tokens = _reshaped(_permuted(node, [0, 3, 1, 2]))
    if tokens is None or len(shape(tokens)) != 3 or len(shape(node)) != 4:
        return False
    batch, channels, height, width = shape(node)
    if shape(tokens) != (batch, height * width, channels):
        return False
    editor.replace(node, editor.call(node, as_image, tokens, height, width))
    return True


def make_linear(editor: Editor, node: fx.Node) -> bool:
    conv = read_convolution(node)
    if conv is None or not is_pointwise(node):
        return False
    tokens = editor.call(node, as_tokens, conv.x)
    matrix = editor.call(node, aten.reshape.default, conv.weight, list(shape(conv.weight)[:2]))
    linear = editor.call(node, aten.linear.default, tokens, matrix, conv.bias)
    editor.replace(node, editor.call(node, as_image, linear, *shape(node)[2:]))
    return True


def cancel_views(editor: Editor, node: fx.Node) -> bool:
    """as_tokens(as_image(t)) is t, and as_image(as_tokens(x)) is x."""
    source = source_of(node)
    inverse = as_image if node.target is as_tokens else as_tokens
    if not is_call(source, inverse) or shape(source_of(source)) != shape(node):
        return False
    editor.replace(node, source_of(source))
    return True


def _is_image_of_linear(node: object) -> TypeGuard[fx.Node]:
    return is_call(node, as_image) and is_call(source_of(node), aten.linear.default)


def add_on_tokens(editor: Editor, add: fx.Node) -> bool:
    """x + as_image(t) -> as_image(as_tokens(x) + t)."""
    for other, image in either_way(add):
        if add.kwargs or not _is_image_of_linear(image) or only_user(image) is not add or not same_stage(image, add):
            continue
        if is_tensor(other) and shape(other) == shape(image):
            tokens = editor.call(add, aten.add.Tensor, editor.call(add, as_tokens, other), source_of(image))
            editor.replace(add, editor.call(add, as_image, tokens, *shape(add)[2:]))
            return True
    return False


PASS = FusionPass(
    "tokens",
    (
        Rule("as_tokens", (aten.reshape.default, aten.permute.default), flatten_to_tokens),
        Rule("as_image", (aten.reshape.default, aten.permute.default), restore_image),
        Rule("pointwise", (aten.conv2d.default,), make_linear),
        Rule("cancelled", (as_tokens, as_image), cancel_views),
        Rule("added", (aten.add.Tensor,), add_on_tokens),
    ),
)
