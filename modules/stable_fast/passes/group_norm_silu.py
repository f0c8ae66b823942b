"""GroupNorm of a feature map, with the SiLU that follows it, becomes lightdiffusion.group_norm_silu (channels-last).

silu(group_norm(x)) -> one operation with silu=True; a group_norm whose result has other users, or another operation
behind it, keeps silu=False. Not matched: norms without weight and bias, and inputs that are not [N, C, h, w].
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.passes.base import Editor, FusionPass, Rule, argument, is_call, only_user, same_stage, shape

aten = torch.ops.aten
GROUP_NORM_SILU = torch.ops.lightdiffusion.group_norm_silu.default
NO_SILU, WITH_SILU = False, True


def fuse_group_norm(editor: Editor, norm: fx.Node) -> bool:
    x, groups = norm.args[:2]
    weight, bias = argument(norm, 2, "weight"), argument(norm, 3, "bias")
    if weight is None or bias is None or len(shape(x)) != 4:
        return False
    eps = argument(norm, 4, "eps", 1e-5)
    editor.replace(norm, editor.call(norm, GROUP_NORM_SILU, x, weight, bias, groups, eps, NO_SILU))
    return True


def fuse_silu(editor: Editor, silu: fx.Node) -> bool:
    norm = silu.args[0]
    if not is_call(norm, GROUP_NORM_SILU) or norm.args[5] or only_user(norm) is not silu or not same_stage(norm, silu):
        return False
    editor.replace(silu, editor.call(silu, GROUP_NORM_SILU, *norm.args[:5], WITH_SILU))
    return True


PASS = FusionPass(
    "group_norm_silu",
    (
        Rule("group_norm", (aten.group_norm.default,), fuse_group_norm),
        Rule("silu", (aten.silu.default,), fuse_silu),
    ),
)
