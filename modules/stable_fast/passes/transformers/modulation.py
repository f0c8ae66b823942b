"""Adaptive LayerNorm and its gate become one operation each (adaLN-Zero: DiT, PixArt, SD3, Flux and others).

ln(x) * (1 + scale) + shift becomes lightdiffusion.modulated_layer_norm, and residual + gate * x becomes
lightdiffusion.gated_add, with the clipping that Flux does in fp16. Scale, shift and gate are vectors of the sample:
[B, 1, C] beside x [B, L, C]. Not matched: norms with weights, and vectors that differ within a sample.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
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
MODULATED = torch.ops.lightdiffusion.modulated_layer_norm.default
GATED_ADD = torch.ops.lightdiffusion.gated_add.default


def fuse_modulation(editor: Editor, total: fx.Node) -> bool:
    for product, shift in either_way(total):
        if not is_call(product, aten.mul.Tensor) or only_user(product) is None or total.kwargs:
            continue
        for norm, factor in either_way(product):
            scale = _scale_before(factor)
            if scale is None or not _is_bare_norm(norm) or not _of_samples(norm, factor, shift):
                continue
            given = arguments(norm)
            vectors = [_as_rows(editor, total, vector) for vector in (scale, shift)]
            editor.replace(total, editor.call(total, MODULATED, given.input, *vectors, given.eps))
            return True
    return False


def _scale_before(factor: object) -> fx.Node | None:
    """The scale in 1 + scale, which may be [B, C] and get its middle dimension after the sum."""
    if is_call(factor, aten.reshape.default) and shape(factor)[1:2] == (1,):
        scale = _scale_before(source_of(factor))
        return scale if scale is not None and shape(scale) == (shape(factor)[0], shape(factor)[-1]) else None
    if not is_call(factor, aten.add.Tensor) or factor.kwargs:
        return None
    for scale, one in either_way(factor):
        if is_tensor(scale) and isinstance(one, (int, float)) and one == 1:
            return scale
    return None


def _is_bare_norm(norm: object) -> bool:
    if not is_call(norm, aten.layer_norm.default) or only_user(norm) is None or len(shape(norm)) != 3:
        return False
    given = arguments(norm)
    return len(given.normalized_shape) == 1 and given.weight is None and given.bias is None


def _of_samples(x: fx.Node, *vectors: object) -> bool:
    """Whether these are vectors [B, 1, C] of the samples of x [B, L, C], with its dtype."""
    batch, length, channels = shape(x)
    return length > 1 and all(
        is_tensor(vector) and shape(vector) == (batch, 1, channels) and dtype_of(vector) == dtype_of(x)
        for vector in vectors
    )


def _as_rows(editor: Editor, before: fx.Node, vector: fx.Node) -> fx.Node:
    return vector if len(shape(vector)) == 2 else editor.call(before, aten.squeeze.dim, vector, 1)


def fuse_gate(editor: Editor, total: fx.Node) -> bool:
    if total.kwargs or not all(map(is_tensor, operands(total))):
        return False
    for residual, product in either_way(total):
        if not is_call(product, aten.mul.Tensor) or only_user(product) is None or shape(residual) != shape(total):
            continue
        for x, gate in either_way(product):
            if not is_tensor(x) or len(shape(x)) != 3 or shape(x) != shape(total) or dtype_of(x) != dtype_of(total):
                continue
            if _of_samples(x, gate) and dtype_of(residual) == dtype_of(x):
                rows = _as_rows(editor, total, gate)
                editor.replace(total, editor.call(total, GATED_ADD, x, rows, residual))
                return True
    return False


def fuse_clip(editor: Editor, clip: fx.Node) -> bool:
    total, given = source_of(clip), arguments(clip)
    if not is_call(total, GATED_ADD) or only_user(total) is not clip or arguments(total).most is not None:
        return False
    if not isinstance(given.max, (int, float)) or given.min != -given.max or not same_stage(total, clip):
        return False
    editor.replace(clip, editor.call_changed(clip, total, most=float(given.max)))
    return True


PASS = FusionPass(
    "modulation",
    (
        Rule("modulated", (aten.add.Tensor,), fuse_modulation),
        Rule("gated", (aten.add.Tensor,), fuse_gate),
        Rule("clipped", (aten.clip.default, aten.clamp.default), fuse_clip),
    ),
)
