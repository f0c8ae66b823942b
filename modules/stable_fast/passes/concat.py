"""A concatenation of two feature maps along channels is never built: its readers take both halves.

group_norm_silu(cat(a, b)) -> lightdiffusion.group_norm_silu_cat(a, b), and the 1x1 skip convolution of cat(a, b) ->
lightdiffusion.conv2d_cat_epilogue(a, b). The pass only applies if all readers of the concatenation are of these two
kinds; otherwise the concatenation is needed anyway. Not matched: other dimensions, and more than two parts.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, is_call, shape
from modules.stable_fast.passes.convolutions import is_pointwise
from modules.stable_fast.passes.group_norm_silu import GROUP_NORM_SILU

aten = torch.ops.aten
GROUP_NORM_SILU_CAT = torch.ops.lightdiffusion.group_norm_silu_cat.default
CONV2D_CAT_EPILOGUE = torch.ops.lightdiffusion.conv2d_cat_epilogue.default


def _reads_in_place(user: fx.Node, cat: fx.Node) -> bool:
    return (is_call(user, GROUP_NORM_SILU) or is_pointwise(user)) and source_of(user) is cat


def skip_concatenation(editor: Editor, cat: fx.Node) -> bool:
    given = arguments(cat)
    if len(given.tensors) != 2 or len(shape(cat)) != 4 or given.dim not in (1, -3):
        return False
    readers = list(cat.users)
    if not all(_reads_in_place(reader, cat) for reader in readers):
        return False
    for reader in readers:
        editor.replace(reader, _of_both(editor, reader, given.tensors))
    return True


def _of_both(editor: Editor, reader: fx.Node, parts: list[fx.Node]) -> fx.Node:
    """The result of `reader`, computed from the parts instead of the concatenation."""
    reads = arguments(reader)
    if is_call(reader, GROUP_NORM_SILU):
        options = (reads.num_groups, reads.eps, reads.silu)
        return editor.call(reader, GROUP_NORM_SILU_CAT, *parts, reads.weight, reads.bias, *options)
    return editor.call(reader, CONV2D_CAT_EPILOGUE, *parts, reads.weight, reads.bias, None)


PASS = FusionPass("concat", (Rule("concat", (aten.cat.default,), skip_concatenation),))
