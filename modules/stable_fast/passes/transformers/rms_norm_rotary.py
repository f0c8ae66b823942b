"""RMSNorm of queries or keys before a rotary embedding becomes lightdiffusion.rms_norm_rotary, also if the normed text
and picture are joined in between.

Not matched: norms without weights, parts with other readers, and tensors that are not [B, L, H, D].
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, only_user, same_stage, shape
from modules.stable_fast.passes.transformers.rms_norm import RMS_NORM
from modules.stable_fast.passes.transformers.rotary_embedding import ROTARY

aten = torch.ops.aten
NORM_ROTARY = torch.ops.lightdiffusion.rms_norm_rotary.default


def fuse_norm(editor: Editor, rotary: fx.Node) -> bool:
    source, turn = source_of(rotary), arguments(rotary)
    if len(shape(rotary)) != 4 or only_user(source) is not rotary:
        return False
    norms = _joined(source) if is_call(source, aten.cat.default) else [source]
    if norms is None or not all(_fits(norm, rotary) for norm in norms):
        return False
    given = [arguments(norm) for norm in norms]
    if len({each.eps for each in given}) > 1:
        return False
    before = (given[0].x, given[0].weight) if len(given) == 2 else (None, None)
    x, weight, eps = given[-1].x, given[-1].weight, given[-1].eps
    new = editor.call(rotary, NORM_ROTARY, x, weight, *before, eps, turn.cos, turn.sin, turn.interleaved)
    editor.replace(rotary, new)
    return True


def _joined(cat: fx.Node) -> list[fx.Node] | None:
    """The two tensors that this joins along their positions."""
    given = arguments(cat)
    return list(given.tensors) if len(given.tensors) == 2 and given.dim % 4 == 1 else None


def _fits(norm: fx.Node, rotary: fx.Node) -> bool:
    if not is_call(norm, RMS_NORM) or only_user(norm) is None or arguments(norm).weight is None:
        return False
    return dtype_of(norm) == dtype_of(rotary) == dtype_of(arguments(norm).weight) and same_stage(norm, rotary)


PASS = FusionPass("rms_norm_rotary", (Rule("rms_norm_rotary", (ROTARY,), fuse_norm),))
