"""Moves between feature map and tokens become views, and 1x1 convolutions become linear layers over tokens.

With channels-last memory, permute + reshape from [N, C, h, w] to [N, h*w, C] and back moves no data (layout.py). A
pointwise convolution is aten.linear over tokens; views that meet cancel; an addition to a map seen from tokens is made
on tokens, where a linear layer can take it in. Not matched: other permutations, and convolutions with a larger kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from modules.stable_fast.graph.layout import as_image, as_tokens
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, is_call, is_tensor, only_user, same_stage, shape
from modules.stable_fast.passes.convolutions import is_pointwise, read_convolution

aten = torch.ops.aten


def _permuted(node: Any, order: list[int]) -> fx.Node | None:
    return node.args[0] if is_call(node, aten.permute.default) and list(node.args[1]) == order else None


def flatten_to_tokens(editor: Editor, node: fx.Node) -> bool:
    """reshape(permute(x, [0, 2, 3, 1]), [N, h*w, C]) or permute(reshape(x, [N, C, h*w]), [0, 2, 1])."""
    if node.target == aten.reshape.default:
        x = _permuted(node.args[0], [0, 2, 3, 1])
    else:
        inner = _permuted(node, [0, 2, 1])
        x = inner.args[0] if is_call(inner, aten.reshape.default) else None
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
        tokens = _permuted(node.args[0], [0, 2, 1])
    else:
        inner = _permuted(node, [0, 3, 1, 2])
        tokens = inner.args[0] if is_call(inner, aten.reshape.default) else None
    if tokens is None or len(shape(tokens)) != 3 or len(shape(node)) != 4:
        return False
    batch, channels, height, width = shape(node)
    if shape(tokens) != (batch, height * width, channels):
        return False
    editor.replace(node, editor.call(node, as_image, tokens, height, width))
    return True


def make_linear(editor: Editor, node: fx.Node) -> bool:
    if not is_pointwise(node):
        return False
    x, weight, bias, _, _ = read_convolution(node) or ()
    tokens = editor.call(node, as_tokens, x)
    matrix = editor.call(node, aten.reshape.default, weight, list(shape(weight)[:2]))
    linear = editor.call(node, aten.linear.default, tokens, matrix, bias)
    editor.replace(node, editor.call(node, as_image, linear, *shape(node)[2:]))
    return True


def cancel(editor: Editor, node: fx.Node) -> bool:
    """as_tokens(as_image(t)) is t, and as_image(as_tokens(x)) is x."""
    source = node.args[0]
    inverse = as_image if node.target is as_tokens else as_tokens
    if not is_call(source, inverse) or shape(source.args[0]) != shape(node):
        return False
    editor.replace(node, source.args[0])
    return True


def add_on_tokens(editor: Editor, add: fx.Node) -> bool:
    """x + as_image(t) -> as_image(as_tokens(x) + t)."""
    for image, other in (add.args[1::-1], add.args[:2]):
        seen = is_call(image, as_image) and only_user(image) is add and is_call(image.args[0], aten.linear.default)
        if seen and is_tensor(other) and shape(other) == shape(image) and same_stage(image, add) and not add.kwargs:
            tokens = editor.call(add, aten.add.Tensor, editor.call(add, as_tokens, other), image.args[0])
            editor.replace(add, editor.call(add, as_image, tokens, *shape(add)[2:]))
            return True
    return False


PASS = FusionPass(
    "tokens",
    (
        Rule("as_tokens", (aten.reshape.default, aten.permute.default), flatten_to_tokens),
        Rule("as_image", (aten.reshape.default, aten.permute.default), restore_image),
        Rule("pointwise", (aten.conv2d.default,), make_linear),
        Rule("cancelled", (as_tokens, as_image), cancel),
        Rule("added", (aten.add.Tensor,), add_on_tokens),
    ),
)
