"""GELU's tanh approximation, written out as in T5 and GPT-2, becomes aten.gelu, which other passes fuse further.

Matched: (0.5 * x) * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))). Not matched: other constants, and parts with other
readers.
"""

from __future__ import annotations

import math

import torch
from torch import fx

from modules.stable_fast.graph.arguments import source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, either_way, is_call, only_user, same_stage

aten = torch.ops.aten
SLOPE, CUBIC = math.sqrt(2 / math.pi), 0.044715


def fuse_written_out(editor: Editor, product: fx.Node) -> bool:
    for half, whole in either_way(product):
        x = _other(half, aten.mul.Tensor, 0.5)
        tanh = _other(whole, aten.add.Tensor, 1.0)
        if x is None or not is_call(tanh, aten.tanh.default) or only_user(tanh) is None:
            continue
        if _inner(source_of(tanh)) is x and same_stage(x, product):
            editor.replace(product, editor.call(product, aten.gelu.default, x, approximate="tanh"))
            return True
    return False


def _other(node: object, operation: object, number: float) -> fx.Node | None:
    """The x of x + number or x * number, if nothing else reads the result."""
    if not is_call(node, operation) or only_user(node) is None or node.kwargs:
        return None
    for x, constant in either_way(node):
        if isinstance(constant, (int, float)) and math.isclose(constant, number, rel_tol=1e-6):
            return x if isinstance(x, fx.Node) else None
    return None


def _inner(node: fx.Node) -> fx.Node | None:
    """The x of sqrt(2 / pi) * (x + 0.044715 * x^3)."""
    total = _other(node, aten.mul.Tensor, SLOPE)
    if not is_call(total, aten.add.Tensor) or only_user(total) is None or total.kwargs:
        return None
    for x, scaled in either_way(total):
        cube = _other(scaled, aten.mul.Tensor, CUBIC)
        if is_call(cube, aten.pow.Tensor_Scalar) and only_user(cube) is not None and cube.args == (x, 3):
            return source_of(cube)
    return None


PASS = FusionPass("gelu_tanh", (Rule("written_out", (aten.mul.Tensor,), fuse_written_out),))
