"""Scaled dot-product attention over packed projections becomes one operation without transposes or copies.

q, k, v as parts of one [B, L, 3HD] -> lightdiffusion.attention_packed_qkv; k, v as parts of one [B, S, 2HD] ->
lightdiffusion.attention_packed_kv. The operation includes the split into heads before it, the merge after it, and
conversions to fp32 around it (`upcast`). Not matched: masks, causal attention, dropout, a scale other than 1/sqrt(D),
and grouped heads.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeGuard

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    dtype_of,
    is_call,
    only_user,
    part_of,
    same_stage,
    shape,
)

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
PACKED_QKV = torch.ops.lightdiffusion.attention_packed_qkv.default
PACKED_KV = torch.ops.lightdiffusion.attention_packed_kv.default
SWAP_HEADS = [0, 2, 1, 3]


class SplitHeads(NamedTuple):
    """A [B, L, H*D] value that was split into H heads, and whether it was converted to fp32 on the way."""

    source: fx.Node
    heads: int
    upcast: bool


def swaps_heads(node: object) -> TypeGuard[fx.Node]:
    """Whether this is permute(x, [0, 2, 1, 3])."""
    return is_call(node, aten.permute.default) and list(arguments(node).dims) == SWAP_HEADS


def split_heads(node: object) -> SplitHeads | None:
    """Matches permute(reshape([convert](x), [B, L, H, D]), [0, 2, 1, 3])."""
    if not swaps_heads(node) or only_user(node) is None:
        return None
    reshape = source_of(node)
    if not is_call(reshape, aten.reshape.default) or only_user(reshape) is None:
        return None
    source, upcast = _before_conversion(source_of(reshape))
    batch, length, heads, width = shape(reshape)
    return SplitHeads(source, heads, upcast) if shape(source) == (batch, length, heads * width) else None


def _before_conversion(node: fx.Node) -> tuple[fx.Node, bool]:
    """The value before a conversion from 16 bits to fp32, and whether there is such a conversion."""
    if not is_call(node, aten.to.dtype) or only_user(node) is None:
        return node, False
    source = source_of(node)
    widens = dtype_of(node) == torch.float32 and dtype_of(source).itemsize == 2
    return (source, True) if widens else (node, False)


def is_plain(sdpa: fx.Node) -> bool:
    """Whether the call computes softmax(q k^T / sqrt(D)) v and nothing else."""
    given = arguments(sdpa)
    no_options = not (given.is_causal or given.enable_gqa or given.dropout_p)
    usual = given.scale is None or math.isclose(given.scale, shape(given.query)[-1] ** -0.5)
    return given.attn_mask is None and usual and no_options


def projections_of(sdpa: fx.Node) -> tuple[SplitHeads, SplitHeads, SplitHeads] | None:
    """q, k and v before the split into heads, if all are split in the same way. The call may have a mask or scale."""
    given = arguments(sdpa)
    q, k, v = split_heads(given.query), split_heads(given.key), split_heads(given.value)
    if q is None or k is None or v is None:
        return None
    alike = (q.heads, q.upcast) == (k.heads, k.upcast) == (v.heads, v.upcast)
    return (q, k, v) if alike else None


def merged_heads(sdpa: fx.Node) -> fx.Node | None:
    """The reshape(permute(y, [0, 2, 1, 3]), [B, L, H*D]) after attention."""
    permute = only_user(sdpa)
    if not swaps_heads(permute):
        return None
    merged = only_user(permute)
    batch, heads, length, width = shape(sdpa)
    if not is_call(merged, aten.reshape.default) or shape(merged) != (batch, length, heads * width):
        return None
    return merged


def fuse_attention(editor: Editor, sdpa: fx.Node) -> bool:
    found, merged = projections_of(sdpa), merged_heads(sdpa)
    if not is_plain(sdpa) or found is None or merged is None or not same_stage(sdpa, merged):
        return False
    q, k, v = found
    last = merged
    if q.upcast:
        last = only_user(merged)
        if not is_call(last, aten.to.dtype) or dtype_of(last) != dtype_of(q.source):
            return False
    qkv, kv = _whole(q, k, v), _whole(k, v)
    if qkv is not None:
        new = editor.call(last, PACKED_QKV, qkv, q.heads, q.upcast)
    elif kv is not None:
        new = editor.call(last, PACKED_KV, q.source, kv, q.heads, q.upcast)
    else:
        return False
    editor.replace(last, new)
    return True


def _whole(*pieces: SplitHeads) -> fx.Node | None:
    """The projection that consists of these pieces in this order."""
    parts = [part_of(piece.source, len(pieces)) for piece in pieces]
    wholes = {part[0] for part in parts if part is not None}
    in_order = [part[1] for part in parts if part is not None] == list(range(len(pieces)))
    return wholes.pop() if in_order and len(wholes) == 1 else None


PASS = FusionPass("attention_packed", (Rule("attention_packed", (SDPA,), fuse_attention),))
