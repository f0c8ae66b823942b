"""GroupNorm of a feature map, with the SiLU that follows it, becomes lightdiffusion.group_norm_silu (channels-last).

silu(group_norm(x)) -> one operation with silu=True. A group_norm with other readers, or without a SiLU
after it, keeps silu=False. Not matched: norms without weight and bias, and inputs that are not [N, C, h, w].
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, is_call, only_user, same_stage, shape

aten = torch.ops.aten
GROUP_NORM_SILU = torch.ops.lightdiffusion.group_norm_silu.default
NO_SILU = False


def fuse_group_norm(editor: Editor, norm: fx.Node) -> bool:
    given = arguments(norm)
    if given.weight is None or given.bias is None or len(shape(given.input)) != 4:
        return False
    args = (given.input, given.weight, given.bias, given.num_groups, given.eps)
    editor.replace(norm, editor.call(norm, GROUP_NORM_SILU, *args, NO_SILU))
    return True


def fuse_silu(editor: Editor, silu: fx.Node) -> bool:
    norm = source_of(silu)
    if not is_call(norm, GROUP_NORM_SILU) or arguments(norm).silu:
        return False
    if only_user(norm) is not silu or not same_stage(norm, silu):
        return False
    editor.replace(silu, editor.call_changed(silu, norm, silu=True))
    return True


PASS = FusionPass(
    "group_norm_silu",
    (
        Rule("group_norm", (aten.group_norm.default,), fuse_group_norm),
        Rule("silu", (aten.silu.default,), fuse_silu),
    ),
)
