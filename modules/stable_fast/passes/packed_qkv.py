"""Projections of one input that meet in one attention become one linear layer with stacked weights.

q, k, v from the same x -> three parts of one projection (self-attention); k, v from the same context -> two parts of
one (cross-attention: it needs the prompt only, so it runs in the prompt stage). The weights are stacked in the weights
stage. Not matched: projections with and without bias mixed, of different types, or that something else reads too.
"""

from __future__ import annotations

from operator import getitem

import torch
from torch import fx

from modules.stable_fast.passes.attention import projections_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, argument, dtype_of, is_call, shape

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default


def _can_stack(linears: list[fx.Node]) -> bool:
    first = linears[0]
    if not all(is_call(linear, aten.linear.default) and len(linear.users) == 1 for linear in linears):
        return False
    biases = {argument(linear, 2, "bias") is None for linear in linears}
    same_input = all(linear.args[0] is first.args[0] for linear in linears)
    same_kind = all(shape(linear) == shape(first) and dtype_of(linear) == dtype_of(first) for linear in linears)
    return len(biases) == 1 and same_input and same_kind and len(set(linears)) == len(linears)


def _stack(editor: Editor, linears: list[fx.Node]) -> None:
    """Replaces the linear layers by parts of one, computed where the first of them was."""
    place = min(linears)
    for linear in linears:
        for weight in linear.all_input_nodes[1:]:
            editor.hoist(weight, place)
    weight = editor.call(place, aten.cat.default, [linear.args[1] for linear in linears], 0)
    biases = [argument(linear, 2, "bias") for linear in linears]
    bias = None if biases[0] is None else editor.call(place, aten.cat.default, biases, 0)
    packed = editor.call(place, aten.linear.default, place.args[0], weight, bias)
    parts = editor.call(place, aten.chunk.default, packed, len(linears), -1)
    pieces = [editor.call(place, getitem, parts, index) for index in range(len(linears))]
    for linear, piece in zip(linears, pieces, strict=True):
        editor.replace(linear, piece)


def pack_self(editor: Editor, sdpa: fx.Node) -> bool:
    found = projections_of(sdpa)
    if found is None or not _can_stack(list(found)):
        return False
    _stack(editor, list(found))
    return True


def pack_cross(editor: Editor, sdpa: fx.Node) -> bool:
    found = projections_of(sdpa)
    if found is None or not _can_stack(list(found[1:])):
        return False
    _stack(editor, list(found[1:]))
    return True


PASS = FusionPass("packed_qkv", (Rule("qkv", (SDPA,), pack_self), Rule("kv", (SDPA,), pack_cross)))
