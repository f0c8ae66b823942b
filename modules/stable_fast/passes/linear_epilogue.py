"""A linear layer and the operations after it become lightdiffusion.linear_epilogue.

Fuses the bias, then SiLU, GELU (exact or by tanh) or x * sigmoid(1.702 x), then a residual of the same shape. Each is
fused if nothing else reads the value before it. Not matched: additions that broadcast or happen at a later stage, and
weights that are not [out, in].
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
    gelu_name,
    is_call,
    is_tensor,
    only_user,
    operands,
    same_stage,
    shape,
)

aten = torch.ops.aten
LINEAR_EPILOGUE = torch.ops.lightdiffusion.linear_epilogue.default
QUICK_GELU_SLOPE = 1.702


def fuse_linear(editor: Editor, linear: fx.Node) -> bool:
    given = arguments(linear)
    if len(shape(given.weight)) != 2:
        return False
    args = (given.input, given.weight, given.bias, None, "none")
    editor.replace(linear, editor.call(linear, LINEAR_EPILOGUE, *args))
    return True


def _has_no_residual(node: object) -> TypeGuard[fx.Node]:
    return is_call(node, LINEAR_EPILOGUE) and arguments(node).residual is None


def _is_plain(node: object) -> TypeGuard[fx.Node]:
    """Whether this is a fused linear layer without residual or activation."""
    return _has_no_residual(node) and arguments(node).activation == "none"


def add_activation(editor: Editor, node: fx.Node) -> bool:
    linear = source_of(node)
    if not _is_plain(linear) or only_user(linear) is not node or not same_stage(linear, node):
        return False
    activation = "silu" if is_call(node, aten.silu.default) else gelu_name(node)
    editor.replace(node, editor.call_changed(node, linear, activation=activation))
    return True


def add_quick_gelu(editor: Editor, product: fx.Node) -> bool:
    """x * sigmoid(1.702 x). Here the linear layer has two readers: the product and the scaling."""
    for linear, sigmoid in either_way(product):
        if not (_is_plain(linear) and is_call(sigmoid, aten.sigmoid.default) and only_user(sigmoid) is product):
            continue
        scaled = source_of(sigmoid)
        slope = is_call(scaled, aten.mul.Tensor) and operands(scaled) == (linear, QUICK_GELU_SLOPE)
        if slope and only_user(scaled) is sigmoid and set(linear.users) == {product, scaled}:
            editor.replace(product, editor.call_changed(product, linear, activation="quick_gelu"))
            return True
    return False


def add_residual(editor: Editor, add: fx.Node) -> bool:
    for other, linear in either_way(add):
        if add.kwargs or not _has_no_residual(linear) or only_user(linear) is not add or not same_stage(linear, add):
            continue
        if is_tensor(other) and shape(other) == shape(linear):
            editor.replace(add, editor.call_changed(add, linear, residual=other))
            return True
    return False


PASS = FusionPass(
    "linear_epilogue",
    (
        Rule("linear", (aten.linear.default,), fuse_linear),
        Rule("activation", (aten.silu.default, aten.gelu.default), add_activation),
        Rule("quick_gelu", (aten.mul.Tensor,), add_quick_gelu),
        Rule("residual", (aten.add.Tensor,), add_residual),
    ),
)
