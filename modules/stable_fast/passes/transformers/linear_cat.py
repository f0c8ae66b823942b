"""A linear layer on two joined tensors becomes lightdiffusion.linear_cat, as in the single blocks of Flux.

Not matched: more parts, joined tensors with other readers, and products whose residual or activation linear_epilogue
takes.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, only_user, same_stage, shape

aten = torch.ops.aten
LINEAR_CAT = torch.ops.lightdiffusion.linear_cat.default
IN_EPILOGUE = (aten.add.Tensor, aten.silu.default, aten.gelu.default)


def fuse_cat(editor: Editor, linear: fx.Node) -> bool:
    cat, given = source_of(linear), arguments(linear)
    if not is_call(cat, aten.cat.default) or only_user(cat) is not linear or is_call(only_user(linear), *IN_EPILOGUE):
        return False
    parts, rank = list(arguments(cat).tensors), len(shape(cat))
    if len(parts) != 2 or arguments(cat).dim % rank != rank - 1 or len(shape(given.weight)) != 2:
        return False
    if len({dtype_of(each) for each in (*parts, linear)}) > 1 or not same_stage(cat, linear):
        return False
    editor.replace(linear, editor.call(linear, LINEAR_CAT, *parts, given.weight, given.bias))
    return True


PASS = FusionPass("linear_cat", (Rule("linear_cat", (aten.linear.default,), fuse_cat),))
