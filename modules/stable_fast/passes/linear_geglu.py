"""linear -> two halves -> value * gelu(gate) becomes lightdiffusion.linear_geglu.

The first half is the value and the second half is the gate. GELU is exact (erf). Not matched: the tanh approximation,
halves in the other order, and halves with other readers.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    either_way,
    is_call,
    only_user,
    part_of,
    same_stage,
    shape,
)

aten = torch.ops.aten
LINEAR_GEGLU = torch.ops.lightdiffusion.linear_geglu.default


def fuse_geglu(editor: Editor, product: fx.Node) -> bool:
    for value, gelu in either_way(product):
        linear = _linear_before(value, gelu, product)
        if linear is not None:
            given = arguments(linear)
            editor.replace(product, editor.call(product, LINEAR_GEGLU, given.input, given.weight, given.bias))
            return True
    return False


def _linear_before(value: object, gelu: object, product: fx.Node) -> fx.Node | None:
    """The linear layer whose halves are `value` and the operand of `gelu`."""
    if not (isinstance(value, fx.Node) and is_call(gelu, aten.gelu.default)):
        return None
    gate = source_of(gelu)
    first, second = part_of(value, 2), part_of(gate, 2)
    if first is None or second is None or first[0] is not second[0] or (first[1], second[1]) != (0, 1):
        return None
    linear = first[0]
    exact = arguments(gelu).approximate == "none"
    private = all(only_user(node) is not None for node in (value, gate, gelu)) and len(linear.users) == 1
    if not (exact and private and is_call(linear, aten.linear.default) and len(shape(linear)) == 3):
        return None
    return linear if same_stage(linear, product) else None


PASS = FusionPass("linear_geglu", (Rule("linear_geglu", (aten.mul.Tensor,), fuse_geglu),))
