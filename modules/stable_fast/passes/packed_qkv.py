"""Projections of one input become one linear layer with stacked weights: those of an attention, and those of a vector.

Self-attention: q, k, v from the same x become three parts of one projection. Cross-attention: k, v from the same
context become two parts of one projection, which needs only the prompt and runs in the prompt stage. The weights stage
stacks the weights. Attention with a mask or another scale has a pass of its own, since the stacks of a large text
encoder take memory. Not matched: projections with different dtypes, with a bias in only some of them, or with other
readers.

A vector for each picture, such as the embedded timestep, may have a projection in each block: they become parts of one.
Not matched: large projections, which take longer to read than to launch, and whose stack would take memory.
"""

from __future__ import annotations

from math import prod
from operator import getitem

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments
from modules.stable_fast.graph.sizes import Sizes
from modules.stable_fast.graph.staging import ROWS, WEIGHTS, stage_of
from modules.stable_fast.passes.attention_packed import SDPA, is_plain, projections_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, shape

aten = torch.ops.aten

LARGEST_BYTES = 16 << 20  # of a vector's projection
MOST_ROWS = 64  # of vectors for each picture, or of all where the batch has no name


def _can_stack(linears: list[fx.Node]) -> bool:
    first = linears[0]
    if not all(is_call(linear, aten.linear.default) and len(linear.users) == 1 for linear in linears):
        return False
    given = [arguments(linear) for linear in linears]
    all_or_no_biases = len({each.bias is None for each in given}) == 1
    same_input = all(each.input is given[0].input for each in given)
    same_kind = all(shape(linear) == shape(first) and dtype_of(linear) == dtype_of(first) for linear in linears)
    return all_or_no_biases and same_input and same_kind and len(set(linears)) == len(linears)


def pack_vector(editor: Editor, linear: fx.Node) -> bool:
    x = arguments(linear).input
    if not _is_vector(x, editor.sizes):
        return False
    has_bias = arguments(linear).bias is not None
    linears = [other for other in x.users if _is_small(other, x) and (arguments(other).bias is not None) == has_bias]
    if linear not in linears or len(linears) < 2:
        return False
    _stack(editor, linears)
    return True


def _is_vector(x: fx.Node, sizes: Sizes) -> bool:
    """Whether x is [rows, width], with few rows for each picture."""
    if len(shape(x)) != 2:
        return False
    rows, batch = shape(x)[0], sizes.primes.get(ROWS, 1)
    return rows % batch == 0 and rows // batch <= MOST_ROWS and sizes.names_in([rows]) <= {ROWS}


def _is_small(linear: fx.Node, x: fx.Node) -> bool:
    """Whether this is a small projection of x in x's type, by weights alone."""
    if not is_call(linear, aten.linear.default) or arguments(linear).input is not x:
        return False
    weights = linear.all_input_nodes[1:]
    by_weights_alone = all(stage_of(weight.meta["needs"]) == WEIGHTS for weight in weights)
    small = prod(shape(arguments(linear).weight)) * dtype_of(linear).itemsize <= LARGEST_BYTES
    return by_weights_alone and small and dtype_of(linear) == dtype_of(x)


def _stack(editor: Editor, linears: list[fx.Node]) -> None:
    """Replaces the linear layers by parts of a single layer, placed where the first of them was."""
    place = min(linears)
    for linear in linears:
        for weight in linear.all_input_nodes[1:]:
            editor.hoist(weight, place)
    given = [arguments(linear) for linear in linears]
    weight = editor.call(place, aten.cat.default, [each.weight for each in given], 0)
    has_bias = given[0].bias is not None
    bias = editor.call(place, aten.cat.default, [each.bias for each in given], 0) if has_bias else None
    packed = editor.call(place, aten.linear.default, given[0].input, weight, bias)
    widths = [shape(linear)[-1] for linear in linears]
    if len(set(widths)) == 1:
        parts = editor.call(place, aten.chunk.default, packed, len(linears), -1)
    else:
        parts = editor.call(place, aten.split_with_sizes.default, packed, widths, -1)
    pieces = [editor.call(place, getitem, parts, index) for index in range(len(linears))]
    for linear, piece in zip(linears, pieces, strict=True):
        editor.replace(linear, piece)


def _pack(editor: Editor, linears: list[fx.Node]) -> bool:
    if not linears or not _can_stack(linears):
        return False
    _stack(editor, linears)
    return True


def pack_any_self(editor: Editor, sdpa: fx.Node) -> bool:
    return _pack(editor, [part.source for part in projections_of(sdpa) or ()])


def pack_any_cross(editor: Editor, sdpa: fx.Node) -> bool:
    return _pack(editor, [part.source for part in projections_of(sdpa) or ()][1:])


def pack_self(editor: Editor, sdpa: fx.Node) -> bool:
    return is_plain(sdpa) and pack_any_self(editor, sdpa)


def pack_cross(editor: Editor, sdpa: fx.Node) -> bool:
    return is_plain(sdpa) and pack_any_cross(editor, sdpa)


PASS = FusionPass("packed_qkv", (Rule("qkv", (SDPA,), pack_self), Rule("kv", (SDPA,), pack_cross)))
ANY_PASS = FusionPass(
    "packed_qkv_of_any", (Rule("qkv", (SDPA,), pack_any_self), Rule("kv", (SDPA,), pack_any_cross)), adds_weights=True
)
VECTOR_PASS = FusionPass("packed_vector", (Rule("vector", (aten.linear.default,), pack_vector),), adds_weights=True)
