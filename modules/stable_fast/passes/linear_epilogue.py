"""A linear layer and what follows it become lightdiffusion.linear_epilogue.

linear + bias, then SiLU, exact GELU or x * sigmoid(1.702 x), then + residual of the same shape, each if it is there and
nothing else reads the value before it. Not matched: GELU's tanh approximation, additions that broadcast or happen at a
later stage, and matrices multiplied by anything but a [out, in] weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    argument,
    is_call,
    is_tensor,
    only_user,
    same_stage,
    shape,
)

aten = torch.ops.aten
LINEAR_EPILOGUE = torch.ops.lightdiffusion.linear_epilogue.default
RESIDUAL, ACTIVATION = 3, 4  # positions of its arguments
QUICK_GELU_SLOPE = 1.702


def fuse_linear(editor: Editor, linear: fx.Node) -> bool:
    x, weight = linear.args[:2]
    bias = argument(linear, 2, "bias")
    if len(shape(weight)) != 2:
        return False
    editor.replace(linear, editor.call(linear, LINEAR_EPILOGUE, x, weight, bias, None, "none"))
    return True


def _join(editor: Editor, linear: fx.Node, user: fx.Node, position: int, value: Any) -> None:
    args = list(linear.args)
    args[position] = value
    editor.replace(user, editor.call(user, LINEAR_EPILOGUE, *args))


def _is_plain(node: Any) -> bool:
    return is_call(node, LINEAR_EPILOGUE) and node.args[RESIDUAL] is None and node.args[ACTIVATION] == "none"


def add_activation(editor: Editor, node: fx.Node) -> bool:
    linear = node.args[0]
    if not _is_plain(linear) or only_user(linear) is not node or not same_stage(linear, node):
        return False
    if node.target == aten.gelu.default and argument(node, 1, "approximate", "none") != "none":
        return False
    _join(editor, linear, node, ACTIVATION, "silu" if node.target == aten.silu.default else "gelu")
    return True


def add_quick_gelu(editor: Editor, product: fx.Node) -> bool:
    """x * sigmoid(1.702 x): the linear layer has two readers here, the product and the scaling."""
    for linear, sigmoid in (product.args[:2], product.args[1::-1]):
        if not (_is_plain(linear) and is_call(sigmoid, aten.sigmoid.default) and only_user(sigmoid) is product):
            continue
        scaled = sigmoid.args[0]
        slope = is_call(scaled, aten.mul.Tensor) and scaled.args == (linear, QUICK_GELU_SLOPE)
        if slope and only_user(scaled) is sigmoid and set(linear.users) == {product, scaled}:
            _join(editor, linear, product, ACTIVATION, "quick_gelu")
            return True
    return False


def add_residual(editor: Editor, add: fx.Node) -> bool:
    for linear, other in (add.args[1::-1], add.args[:2]):
        is_open = is_call(linear, LINEAR_EPILOGUE) and linear.args[RESIDUAL] is None
        if not is_open or only_user(linear) is not add or not same_stage(linear, add) or add.kwargs:
            continue
        if is_tensor(other) and shape(other) == shape(linear):
            _join(editor, linear, add, RESIDUAL, other)
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
