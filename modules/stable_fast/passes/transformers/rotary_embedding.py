"""x * cos + turned(x) * sin becomes lightdiffusion.rotary_embedding, with the conversions to float32 and back.

Turned is (-b, a) for each pair of channels (a, b). Matched as Flux pairs them, the neighbours of
reshape(x, [..., D / 2, 2]), and as Llama, OmniGen and others do, the halves of x. Not matched: complex numbers, cosines
and sines that differ in shape or do not broadcast to x, parts with other readers, and a result in another dtype.
"""

from __future__ import annotations

import operator

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
    part_of,
    same_stage,
    shape,
)

aten = torch.ops.aten
ROTARY = torch.ops.lightdiffusion.rotary_embedding.default


def fuse_rotary(editor: Editor, total: fx.Node) -> bool:
    for plain, crossed in either_way(total):
        if total.kwargs or not (_is_private_product(plain, total) and _is_private_product(crossed, total)):
            continue
        for quarter_turn, sin in either_way(crossed):
            turned = _joined_pairs(_narrow(quarter_turn))
            found = None if turned is None else _factors(plain, turned[0])
            if turned is None or found is None or not _fits(*found, sin):
                continue
            x, cos = found
            last = _last(total, x)
            if last is not None and shape(x) == shape(quarter_turn) == shape(total):
                editor.replace(last, editor.call(last, ROTARY, x, cos, sin, turned[1]))
                return True
    return False


def _is_private_product(node: object, total: fx.Node) -> bool:
    return is_call(node, aten.mul.Tensor) and only_user(node) is total and same_stage(node, total)


def _factors(product: fx.Node, root: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """x and the cosines, if one factor is x, a view of `root`."""
    for factor, cos in either_way(product):
        if is_tensor(factor) and is_tensor(cos) and _root(factor) is root:
            return _narrow(factor), cos
    return None


def _last(total: fx.Node, x: fx.Node) -> fx.Node | None:
    """The sum, or the conversion after it, whichever has the dtype of x."""
    if dtype_of(total) == dtype_of(x):
        return total
    last = only_user(total)
    return last if is_call(last, aten.to.dtype) and dtype_of(last) == dtype_of(x) and same_stage(last, total) else None


def _fits(x: fx.Node, cos: fx.Node, sin: object) -> bool:
    """Whether cos and sin have one shape and dtype, every channel of x, and broadcast to it."""
    if not is_tensor(sin) or len(shape(x)) > 4 or shape(cos) != shape(sin) or dtype_of(cos) != dtype_of(sin):
        return False
    return broadcasts(shape(cos), shape(x)) and shape(cos)[-1] == shape(x)[-1] and dtype_of(cos).is_floating_point


def _narrow(node: fx.Node) -> fx.Node:
    """The value before a conversion that loses nothing."""
    if not is_call(node, aten.to.dtype):
        return node
    source = source_of(node)
    return source if torch.promote_types(dtype_of(source), dtype_of(node)) == dtype_of(node) else node


def _root(node: fx.Node) -> fx.Node:
    """The value of which this is a view, before a conversion that loses nothing."""
    narrow = _narrow(node)
    return _narrow(source_of(narrow)) if is_call(narrow, aten.reshape.default) else narrow


def _joined_pairs(node: fx.Node) -> tuple[fx.Node, bool] | None:
    """What was turned, and whether its pairs are neighbours: joined by a stack. Halves are joined by cat."""
    interleaved = is_call(node, aten.reshape.default)
    joined = source_of(node) if interleaved else node
    if not is_call(joined, aten.stack.default if interleaved else aten.cat.default) or only_user(joined) is None:
        return None
    parts, rank = list(arguments(joined).tensors), len(shape(joined))
    if len(parts) != 2 or arguments(joined).dim % rank != rank - 1 or not is_call(parts[0], aten.neg.default):
        return None
    if interleaved and shape(node) != (*shape(joined)[:-2], 2 * shape(joined)[-2]):
        return None
    a, b = parts[1], source_of(parts[0])
    if any(only_user(each) is None for each in (node, a, b, parts[0])):
        return None
    sources = [_unbound(each, index, -1 if interleaved else -2) for index, each in enumerate((a, b))]
    if not interleaved and None in sources:
        sources = [_half(each, index) for index, each in enumerate((a, b))]
    return (sources[0], interleaved) if sources[0] is not None and sources[0] is sources[1] else None


def _unbound(node: fx.Node, index: int, dim: int) -> fx.Node | None:
    """x, if this is reshape(x, [..., D / 2, 2]).unbind(-1)[index] or reshape(x, [..., 2, D / 2]).unbind(-2)[index]."""
    if not is_call(node, operator.getitem) or node.args[1] != index:
        return None
    unbind = source_of(node)
    if not is_call(unbind, aten.unbind.int):
        return None
    pairs = source_of(unbind)
    rank = len(shape(pairs))
    fits = shape(pairs)[dim] == 2 and arguments(unbind).dim % rank == rank + dim
    return _root(pairs) if fits and is_call(pairs, aten.reshape.default) else None


def _half(node: fx.Node, index: int) -> fx.Node | None:
    """x, if this is the first or second half of its channels."""
    part = part_of(node, 2)
    if part is not None:
        return _root(part[0]) if part[1] == index else None
    if not is_call(node, aten.slice.Tensor):
        return None
    x, given = source_of(node), arguments(node)
    rank, size = len(shape(x)), shape(x)[-1]
    start, end = given.start or 0, size if given.end is None else min(given.end, size)
    halves = (0, size // 2), (size // 2, size)
    fits = given.dim % rank == rank - 1 and given.step == 1 and size % 2 == 0
    return _root(x) if fits and (start, end) == halves[index] else None


PASS = FusionPass("rotary_embedding", (Rule("rotary_embedding", (aten.add.Tensor,), fuse_rotary),))
