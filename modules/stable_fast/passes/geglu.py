"""linear -> two halves -> value * gelu(gate) becomes lightdiffusion.linear_geglu.

First half value, second half gate, exact (erf) GELU. Not matched: the tanh approximation, the halves the other way
round, and halves that something else reads too.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    argument,
    is_call,
    only_user,
    part_of,
    same_stage,
    shape,
)

aten = torch.ops.aten
LINEAR_GEGLU = torch.ops.lightdiffusion.linear_geglu.default


def fuse_geglu(editor: Editor, product: fx.Node) -> bool:
    for value, gelu in (product.args[:2], product.args[1::-1]):
        linear = _match(value, gelu, product)
        if linear is not None:
            bias = argument(linear, 2, "bias")
            editor.replace(product, editor.call(product, LINEAR_GEGLU, *linear.args[:2], bias))
            return True
    return False


def _match(value: object, gelu: object, product: fx.Node) -> fx.Node | None:
    """The linear layer behind value * gelu(gate)."""
    if not (isinstance(value, fx.Node) and isinstance(gelu, fx.Node) and is_call(gelu, aten.gelu.default)):
        return None
    gate = gelu.args[0]
    first, second = part_of(value, 2), part_of(gate, 2)
    if first is None or second is None or first[0] is not second[0] or (first[1], second[1]) != (0, 1):
        return None
    linear = first[0]
    exact = argument(gelu, 1, "approximate", "none") == "none"
    private = all(only_user(node) is not None for node in (value, gate, gelu)) and len(linear.users) == 1
    if not (exact and private and is_call(linear, aten.linear.default) and len(shape(linear)) == 3):
        return None
    return linear if same_stage(linear, product) else None


PASS = FusionPass("geglu", (Rule("geglu", (aten.mul.Tensor,), fuse_geglu),))
