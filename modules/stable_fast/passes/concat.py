"""A concatenation of two feature maps along channels is never made: its readers take both halves.

group_norm_silu(cat(a, b)) -> lightdiffusion.group_norm_silu_cat(a, b), and the 1x1 skip convolution of cat(a, b) ->
lightdiffusion.conv2d_cat_epilogue(a, b). Only when all readers of the concatenation are of these two kinds (else it has
to be made anyway); not for other dimensions, or for more than two parts.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.passes.base import Editor, FusionPass, Rule, argument, is_call, shape
from modules.stable_fast.passes.convolutions import is_pointwise
from modules.stable_fast.passes.group_norm_silu import GROUP_NORM_SILU

aten = torch.ops.aten
GROUP_NORM_SILU_CAT = torch.ops.lightdiffusion.group_norm_silu_cat.default
CONV2D_CAT = torch.ops.lightdiffusion.conv2d_cat_epilogue.default


def _reads_in_place(user: fx.Node, cat: fx.Node) -> bool:
    return (is_call(user, GROUP_NORM_SILU) or is_pointwise(user)) and user.args[0] is cat


def skip_concatenation(editor: Editor, cat: fx.Node) -> bool:
    parts, dim = cat.args[0], argument(cat, 1, "dim", 0)
    if len(parts) != 2 or len(shape(cat)) != 4 or dim not in (1, -3):
        return False
    readers = list(cat.users)
    if not all(_reads_in_place(reader, cat) for reader in readers):
        return False
    for reader in readers:
        if is_call(reader, GROUP_NORM_SILU):
            new = editor.call(reader, GROUP_NORM_SILU_CAT, *parts, *reader.args[1:])
        else:
            new = editor.call(reader, CONV2D_CAT, *parts, reader.args[1], argument(reader, 2, "bias"), None)
        editor.replace(reader, new)
    return True


PASS = FusionPass("concat", (Rule("concat", (aten.cat.default,), skip_concatenation),))
