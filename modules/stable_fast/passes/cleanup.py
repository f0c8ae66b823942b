"""Removes operations without effect at inference, and normalises views so that later passes see only one form.

dropout, same-dtype conversions, x * 1, x / 1, contiguous and clone disappear. view, flatten, unsqueeze and the like
become aten.reshape; transpose becomes aten.permute; copies to another dtype become aten.to.dtype. Two in a row merge,
identities and slices that are joined again disappear, and equal calls on equal arguments happen once. Not touched:
reshapes that do not follow each other, and calls that draw random numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.graph.staging import draws
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, operands, shape

aten = torch.ops.aten

RESHAPES = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
)
COPIES = (
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
)
CONVERSIONS = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default, aten.type_as.default)


def drop_dropout(editor: Editor, node: fx.Node) -> bool:
    if arguments(node).train:
        return False
    editor.replace(node, source_of(node))
    return True


def drop_copy(editor: Editor, node: fx.Node) -> bool:
    if node.kwargs.get("memory_format") not in (None, torch.contiguous_format, torch.preserve_format):
        return False
    editor.replace(node, source_of(node))
    return True


def drop_conversion(editor: Editor, node: fx.Node) -> bool:
    source = source_of(node)
    if dtype_of(source) != dtype_of(node):
        return False
    editor.replace(node, source)
    return True


def write_as_to(editor: Editor, node: fx.Node) -> bool:
    editor.replace(node, editor.call(node, aten.to.dtype, source_of(node), dtype_of(node)))
    return True


def drop_times_one(editor: Editor, node: fx.Node) -> bool:
    source, factor = operands(node)
    if isinstance(factor, fx.Node) or factor != 1 or dtype_of(node) != dtype_of(source):
        return False
    editor.replace(node, source)
    return True


def drop_identity(editor: Editor, node: fx.Node) -> bool:
    source = source_of(node)
    if shape(node) != shape(source):
        return False
    if node.target == aten.permute.default and list(arguments(node).dims) != list(range(len(shape(node)))):
        return False
    editor.replace(node, source)
    return True


def write_as_reshape(editor: Editor, node: fx.Node) -> bool:
    editor.replace(node, editor.call(node, aten.reshape.default, source_of(node), list(shape(node))))
    return True


def write_as_permute(editor: Editor, node: fx.Node) -> bool:
    order = list(range(len(shape(node))))
    given = arguments(node)
    first, second = (given.dim0, given.dim1) if node.target == aten.transpose.int else (0, 1)
    order[first], order[second] = order[second], order[first]
    editor.replace(node, editor.call(node, aten.permute.default, source_of(node), order))
    return True


def spell_out_reshape(editor: Editor, node: fx.Node) -> bool:
    """Replaces -1 by the actual size, and two reshapes in a row by one."""
    source = source_of(node)
    merged = source_of(source) if is_call(source, aten.reshape.default) else source
    if merged is source and list(arguments(node).shape) == list(shape(node)):
        return False
    editor.replace(node, editor.call(node, aten.reshape.default, merged, list(shape(node))))
    return True


def merge_permutes(editor: Editor, node: fx.Node) -> bool:
    source = source_of(node)
    if not is_call(source, aten.permute.default):
        return False
    inner = arguments(source).dims
    order = [inner[dim] for dim in arguments(node).dims]
    editor.replace(node, editor.call(node, aten.permute.default, source_of(source), order))
    return True


def drop_joined_again(editor: Editor, cat: fx.Node) -> bool:
    """cat([x[:, :n], x[:, n:]], 1) is x. An input stays, because a result has memory of its own."""
    given = arguments(cat)
    parts = list(given.tensors)
    if not all(is_call(part, aten.slice.Tensor) for part in parts):
        return False
    source, end = source_of(parts[0]), 0
    if source.op == "placeholder" or any(source_of(part) is not source for part in parts):
        return False
    rank = len(shape(source))
    for part in parts:
        cut = arguments(part)
        if (cut.dim - given.dim) % rank or cut.step != 1 or (cut.start or 0) != end:
            return False
        end += shape(part)[cut.dim]
    if end != shape(source)[given.dim]:
        return False
    editor.replace(cat, source)
    return True


def erase_checks(graph: fx.Graph) -> None:
    """Removes the assertions left behind by the tracer. Assertions have no users, so no rule visits them."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target == aten._assert_tensor_metadata.default:
            graph.erase_node(node)


def share_equal_calls(graph: fx.Graph) -> int:
    """Keeps only the first of all calls with the same target and arguments. Returns the number of calls removed.

    All calls that draw random numbers stay, because each draws different numbers.
    """
    seen: dict[Any, fx.Node] = {}
    removed = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or draws(node):
            continue
        key = (node.target, repr(node.args), repr(node.kwargs))
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
            removed += 1
    return removed


PASS = FusionPass(
    "cleanup",
    (
        Rule("dropout", (aten.dropout.default,), drop_dropout),
        Rule("copy", COPIES, drop_copy),
        Rule("conversion", CONVERSIONS, drop_conversion),
        Rule("to", (aten._to_copy.default, aten.type_as.default), write_as_to),
        Rule("times_one", (aten.mul.Tensor, aten.div.Tensor), drop_times_one),
        Rule("identity", (aten.reshape.default, aten.permute.default, aten.expand.default), drop_identity),
        Rule("reshape", RESHAPES, write_as_reshape),
        Rule("permute", (aten.transpose.int, aten.t.default), write_as_permute),
        Rule("spelled_out", (aten.reshape.default,), spell_out_reshape),
        Rule("joined_again", (aten.cat.default,), drop_joined_again),
        Rule("permutes", (aten.permute.default,), merge_permutes),
    ),
)
