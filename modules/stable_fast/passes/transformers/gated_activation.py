"""silu(gate) * x becomes lightdiffusion.gated_activation, as in SwiGLU; so does GELU outside of linear_geglu.

It runs before linear_epilogue, which would put the activation into the gate's linear layer and leave the product.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    dtype_of,
    either_way,
    gelu_name,
    is_call,
    is_tensor,
    only_user,
    same_stage,
    shape,
)

aten = torch.ops.aten
GATED = torch.ops.lightdiffusion.gated_activation.default


def fuse_gated(editor: Editor, product: fx.Node) -> bool:
    for activated, x in either_way(product):
        name = _activation(activated)
        if name is None or not is_tensor(x) or only_user(activated) is None or not same_stage(activated, product):
            continue
        gate = source_of(activated)
        if shape(gate) == shape(x) and dtype_of(gate) == dtype_of(x) and len(shape(x)) == 3:
            editor.replace(product, editor.call(product, GATED, x, gate, name))
            return True
    return False


def _activation(node: object) -> str | None:
    if is_call(node, aten.silu.default):
        return "silu"
    return gelu_name(node) if is_call(node, aten.gelu.default) else None


PASS = FusionPass("gated_activation", (Rule("gated_activation", (aten.mul.Tensor,), fuse_gated),))
