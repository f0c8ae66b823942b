"""Attention written out becomes aten.scaled_dot_product_attention, of which libraries and other passes make more.

softmax(q k^T * scale + mask) v, as transformers' eager attention and T5 before its fifth version write it: with or
without the scale, the mask or position bias, and conversions of the scores to float32 and back. Not matched: masks of
another dtype than q, scores with other readers, and values that are not [B, H, L, D].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    broadcasts,
    dtype_of,
    either_way,
    is_call,
    is_tensor,
    only_user,
    operands,
    same_stage,
    shape,
)

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default


class Scores(NamedTuple):
    """q and k^T, what their product was multiplied by, and what was added after that."""

    q: fx.Node
    transposed_k: fx.Node
    scale: float = 1.0
    mask: fx.Node | None = None


def fuse_attention(editor: Editor, product: fx.Node) -> bool:
    weights, v = operands(product)
    softmax = _before_conversion(weights)
    if not is_call(softmax, aten.softmax.int) or not is_tensor(v) or not same_stage(softmax, product):
        return False
    given = arguments(softmax)
    found = _scores(_before_conversion(given.self))
    if found is None or given.dim not in (-1, 3) or not _fits(found, v):
        return False
    k = _transposed(editor, product, found.transposed_k)
    new = editor.call(product, SDPA, found.q, k, v, attn_mask=found.mask, scale=found.scale)
    editor.replace(product, new)
    return True


def _before_conversion(node: object) -> object:
    """The value that nothing but this conversion reads, or the node itself; None if something else reads the node."""
    if not isinstance(node, fx.Node) or only_user(node) is None:
        return None
    return _before_conversion(source_of(node)) if is_call(node, aten.to.dtype) else node


def _scores(node: object) -> Scores | None:
    """What these scores were made of."""
    if is_call(node, aten.matmul.default):
        q, transposed_k = operands(node)
        return Scores(q, transposed_k) if is_tensor(q) and is_tensor(transposed_k) else None
    if is_call(node, aten.add.Tensor) and not node.kwargs:
        for inner, mask in either_way(node):
            found = _scores(_before_conversion(inner))
            if found is not None and found.mask is None and is_tensor(mask):
                return found._replace(mask=mask)
    if is_call(node, aten.mul.Tensor, aten.div.Tensor):
        inner, factor = operands(node)
        found = _scores(_before_conversion(inner))
        if found is not None and found.mask is None and isinstance(factor, (int, float)):
            times = factor if node.target == aten.mul.Tensor else 1 / factor
            return found._replace(scale=found.scale * times)
    return None


def _fits(scores: Scores, v: fx.Node) -> bool:
    """Whether q, k and v [B, H, L, D] have a dtype and heads in common, and the mask broadcasts to the scores."""
    q, k, mask = scores.q, scores.transposed_k, scores.mask
    if not len(shape(q)) == len(shape(k)) == len(shape(v)) == 4 or not dtype_of(q) == dtype_of(k) == dtype_of(v):
        return False
    if not shape(q)[:2] == shape(k)[:2] == shape(v)[:2]:
        return False
    whole = (*shape(q)[:3], shape(k)[3])
    return mask is None or (dtype_of(mask) == dtype_of(q) and broadcasts(shape(mask), whole))


def _transposed(editor: Editor, before: fx.Node, node: fx.Node) -> fx.Node:
    """The value with its last two dimensions swapped, as one permute at most."""
    order, source = [0, 1, 3, 2], node
    if is_call(node, aten.permute.default):
        given, source = list(arguments(node).dims), source_of(node)
        order = [given[dim] for dim in order]
    return source if order == [0, 1, 2, 3] else editor.call(before, aten.permute.default, source, order)


PASS = FusionPass("attention", (Rule("written_out", (aten.matmul.default,), fuse_attention),))
