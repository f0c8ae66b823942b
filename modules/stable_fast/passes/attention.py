"""Scaled dot-product attention over packed projections becomes one operation without transposes or copies.

q, k, v = parts of one [B, L, 3HD] -> lightdiffusion.attention_packed_qkv; k, v = parts of one [B, S, 2HD] ->
lightdiffusion.attention_packed_kv. The splitting into heads before, the merging after, and conversions to fp32 around
it (`upcast`) go with it. Not matched: masks, causal attention, dropout, another scale than 1/sqrt(D), grouped heads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx

from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    argument,
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


class Heads(NamedTuple):
    """A [B, L, H*D] value that was split into H heads, and whether it was converted to fp32 on the way."""

    source: fx.Node
    count: int
    upcast: bool


def split_heads(node: Any) -> Heads | None:
    """Reads permute(reshape([convert](x), [B, L, H, D]), [0, 2, 1, 3])."""
    if not is_call(node, aten.permute.default) or list(node.args[1]) != SWAP_HEADS or only_user(node) is None:
        return None
    reshape = node.args[0]
    if not is_call(reshape, aten.reshape.default) or only_user(reshape) is None:
        return None
    source, upcast = _before_conversion(reshape.args[0])
    batch, length, heads, width = shape(reshape)
    return Heads(source, heads, upcast) if shape(source) == (batch, length, heads * width) else None


def _before_conversion(node: fx.Node) -> tuple[fx.Node, bool]:
    widens = is_call(node, aten.to.dtype) and dtype_of(node) == torch.float32 and dtype_of(node.args[0]).itemsize == 2
    return (node.args[0], True) if widens and only_user(node) is not None else (node, False)


def is_plain(sdpa: fx.Node) -> bool:
    """Whether the call computes softmax(q k^T / sqrt(D)) v and nothing else."""
    defaults = (("attn_mask", None), ("dropout_p", 0.0), ("is_causal", False), ("scale", None), ("enable_gqa", False))
    positions = {"attn_mask": 3, "dropout_p": 4, "is_causal": 5}
    return all(argument(sdpa, positions.get(name, 99), name, value) == value for name, value in defaults)


def projections_of(sdpa: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node] | None:
    """The [B, L, H*D] values of q, k and v, when all are split into heads in the same way."""
    parts = [split_heads(node) for node in sdpa.args[:3]]
    if not is_plain(sdpa) or None in parts:
        return None
    q, k, v = (part for part in parts if part is not None)
    alike = (q.count, q.upcast) == (k.count, k.upcast) == (v.count, v.upcast)
    return (q.source, k.source, v.source) if alike else None


def _merged(sdpa: fx.Node) -> fx.Node | None:
    """The reshape(permute(y, [0, 2, 1, 3]), [B, L, H*D]) behind attention, and the conversion back."""
    permute = only_user(sdpa)
    if not is_call(permute, aten.permute.default) or list(permute.args[1]) != SWAP_HEADS:
        return None
    merged = only_user(permute)
    batch, heads, length, width = shape(sdpa)
    if not is_call(merged, aten.reshape.default) or shape(merged) != (batch, length, heads * width):
        return None
    return merged


def fuse_attention(editor: Editor, sdpa: fx.Node) -> bool:
    sources, merged = projections_of(sdpa), _merged(sdpa)
    if sources is None or merged is None or not same_stage(sdpa, merged):
        return False
    heads = split_heads(sdpa.args[0])
    last = merged
    if heads is not None and heads.upcast:
        last = only_user(merged)
        if not is_call(last, aten.to.dtype) or dtype_of(last) != dtype_of(heads.source):
            return False
    q, k, v = sources
    packed = _whole((q, k, v), 3)
    if packed is not None:
        new = editor.call(last, PACKED_QKV, packed, heads.count, heads.upcast)
    else:
        packed = _whole((k, v), 2)
        if packed is None:
            return False
        new = editor.call(last, PACKED_KV, q, packed, heads.count, heads.upcast)
    editor.replace(last, new)
    return True


def _whole(pieces: tuple[fx.Node, ...], count: int) -> fx.Node | None:
    """The value that these pieces, in order, are all of."""
    parts = [part_of(piece, count) for piece in pieces]
    wholes = {part[0] for part in parts if part is not None}
    in_order = [part[1] for part in parts if part is not None] == list(range(count))
    return wholes.pop() if in_order and len(wholes) == 1 else None


PASS = FusionPass("attention", (Rule("attention", (SDPA,), fuse_attention),))
