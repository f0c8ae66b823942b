"""LayerNorm over the last dimension becomes lightdiffusion.layer_norm, or add_layer_norm if an addition precedes it.

The addition is fused only if no linear layer has absorbed it. linear_epilogue runs first, because a residual there
costs one read and no write. Not matched: norms without weight and bias, norms over several dimensions, and
additions that broadcast or happen at another stage.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, is_call, is_tensor, operands, same_stage, shape

aten = torch.ops.aten
LAYER_NORM = torch.ops.lightdiffusion.layer_norm.default
ADD_LAYER_NORM = torch.ops.lightdiffusion.add_layer_norm.default


def fuse_layer_norm(editor: Editor, norm: fx.Node) -> bool:
    given = arguments(norm)
    if len(given.normalized_shape) != 1 or given.weight is None or given.bias is None:
        return False
    editor.replace(norm, editor.call(norm, LAYER_NORM, given.input, given.weight, given.bias, given.eps))
    return True


def fuse_add(editor: Editor, norm: fx.Node) -> bool:
    given = arguments(norm)
    return fuse_addition(editor, norm, ADD_LAYER_NORM, given.weight, given.bias, given.eps)


def fuse_addition(editor: Editor, norm: fx.Node, fused: Callable[..., Any], *others: Any) -> bool:
    """Replaces x + residual and its norm by `fused(x, residual, *others)`, which gives both."""
    add = source_of(norm)
    if not is_call(add, aten.add.Tensor) or add.kwargs or not same_stage(add, norm):
        return False
    x, residual = operands(add)
    if not (is_tensor(x) and is_tensor(residual) and shape(x) == shape(residual) == shape(add)):
        return False
    for other in others:
        if isinstance(other, fx.Node):
            editor.hoist(other, add)
    both = editor.call(add, fused, x, residual, *others)
    total, normed = editor.call(add, getitem, both, 0), editor.call(add, getitem, both, 1)
    editor.replace(norm, normed)
    add.replace_all_uses_with(total)
    editor.erase_unused(add)
    return True


PASS = FusionPass(
    "layer_norm",
    (Rule("layer_norm", (aten.layer_norm.default,), fuse_layer_norm), Rule("add_layer_norm", (LAYER_NORM,), fuse_add)),
)
