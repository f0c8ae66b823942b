"""Weights of the fused graph are kept in eight bits, and become half precision again just before they are used.

Only one such weight at a time takes its place in memory. Products stay those of the fused graph. Not matched: the first
and the last convolution, which have few channels, and 1x1 shortcuts of joined feature maps: their rounding costs most.
"""

from __future__ import annotations

from functools import partial
from operator import getitem

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments
from modules.stable_fast.graph.staging import WEIGHTS, stage_of
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, shape
from modules.stable_fast.passes.eight_bits.suits import CONV2D, FEW_CHANNELS, GEGLU, LINEAR, UPSAMPLE

ops = torch.ops.lightdiffusion
DEQUANTIZE = ops.dequantize_channels.default


def store_weight(editor: Editor, product: fx.Node, kind: torch.dtype) -> bool:
    weight = arguments(product).weight
    if is_call(weight, DEQUANTIZE) or stage_of(weight.meta["needs"]) != WEIGHTS or not _has_channels(weight):
        return False
    if stage_of(product.meta["needs"]) == WEIGHTS:
        return False
    both = editor.call(product, ops.quantize_channels.default, weight, kind)
    q, scale = editor.call(product, getitem, both, 0), editor.call(product, getitem, both, 1)
    whole = editor.call(product, DEQUANTIZE, q, scale, dtype_of(weight))
    whole.meta["needs"] = product.meta["needs"]  # else it would be kept whole, as a value of the weights stage
    editor.replace(product, editor.call_changed(product, product, weight=whole))
    return True


def _has_channels(weight: fx.Node) -> bool:
    return min(shape(weight)[:2]) > FEW_CHANNELS


def storage_pass(kind: torch.dtype) -> FusionPass:
    """The pass for numbers of this kind. Its name is in the key of a kept graph, so kinds never mix there."""
    anchors = {"linear": LINEAR, "linear_geglu": GEGLU, "conv2d": CONV2D, "upsample_conv2d": UPSAMPLE}
    rewrite = partial(store_weight, kind=kind)
    made = tuple(Rule(name, (anchor,), rewrite) for name, anchor in anchors.items())
    return FusionPass(f"weights_in_{str(kind).removeprefix('torch.')}", made, lowers_precision=True)
