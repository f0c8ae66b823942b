"""What T5 does in fp16 after each layer becomes lightdiffusion.clamp_infinities, and with the norm that follows,
lightdiffusion.clamped_rms_norm.

most = where(isinf(x).any(), finfo.max - 1000, finfo.max);  clamp(x, -most, most)

Not matched: a limit without infinities that is less than the dtype's largest number.
"""

from __future__ import annotations

from operator import getitem

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, same_stage
from modules.stable_fast.passes.transformers.rms_norm import RMS_NORM

aten = torch.ops.aten
CLAMP = torch.ops.lightdiffusion.clamp_infinities.default
CLAMPED_RMS_NORM = torch.ops.lightdiffusion.clamped_rms_norm.default


def fuse_clamp(editor: Editor, clamp: fx.Node) -> bool:
    x, given = source_of(clamp), arguments(clamp)
    limit = given.max
    if not is_call(limit, aten.where.Scalar) or not is_call(given.min, aten.neg.default):
        return False
    if source_of(given.min) is not limit or not _is_any_infinite(source_of(limit), x) or not same_stage(x, clamp):
        return False
    dtype, choice = dtype_of(x), arguments(limit)
    if dtype_of(clamp) != dtype or choice.other != torch.finfo(dtype).max:
        return False
    most = torch.tensor(choice.self, dtype=dtype).item()  # the clamp rounds its limits
    editor.replace(clamp, editor.call(clamp, CLAMP, x, most))
    return True


def _is_any_infinite(node: fx.Node, x: fx.Node) -> bool:
    if not is_call(node, aten.any.default):
        return False
    infinite = source_of(node)
    return is_call(infinite, aten.isinf.default) and source_of(infinite) is x


def fuse_norm(editor: Editor, norm: fx.Node) -> bool:
    clamp, given = source_of(norm), arguments(norm)
    if not is_call(clamp, CLAMP) or not same_stage(clamp, norm):
        return False
    if given.weight is not None:
        editor.hoist(given.weight, clamp)
    x, most = source_of(clamp), arguments(clamp).most
    both = editor.call(clamp, CLAMPED_RMS_NORM, x, given.weight, given.eps, most)
    clamped, normed = editor.call(clamp, getitem, both, 0), editor.call(clamp, getitem, both, 1)
    editor.replace(clamp, clamped)
    editor.replace(norm, normed)
    return True


PASS = FusionPass(
    "clamp_infinities",
    (Rule("clamp", (aten.clamp.Tensor,), fuse_clamp), Rule("norm", (RMS_NORM,), fuse_norm)),
)
