"""Which layers compute in eight bits. The others stay as they are, because rounding them costs most or saves nothing.

A linear layer does if the operation before it is LayerNorm, attention or GEGLU. So these stay: 1x1 shortcuts and the
projection out of a transformer, which read the sum of all layers before them, and the projection into it, which is
small, and whose rounding causes a quarter of the error. A convolution does if its kernel is 3x3. These stay: the first
and the last, which have few channels, and the last one before that, whose error nothing averages out. Nothing is
rounded that needs the prompt or the time only, since it does not run in each step: keys and values of the prompt, the
time's embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import getitem

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.graph.staging import SHARED, STEP, stage_of
from modules.stable_fast.passes.base import is_call, shape

ops = torch.ops.lightdiffusion
LAYER_NORM, ADD_LAYER_NORM = ops.layer_norm.default, ops.add_layer_norm.default
GROUP_NORM, GROUP_NORM_CAT = ops.group_norm_silu.default, ops.group_norm_silu_cat.default
GEGLU, GEGLU_EIGHT = ops.linear_geglu.default, ops.linear_geglu_eight.default
LINEAR, CONV2D, UPSAMPLE = ops.linear_epilogue.default, ops.conv2d_epilogue.default, ops.upsample_conv2d.default
BOUNDED = (
    *(LAYER_NORM, GEGLU, GEGLU_EIGHT),
    *(ops.attention_packed_qkv.default, ops.attention_packed_kv.default, ops.attention_heads.default),
)
ALIGNED = 16  # bytes, and so numbers, that tensor cores read at once
FEW_CHANNELS = 16  # of a latent or a picture, so of a first or last convolution
KERNEL = (3, 3)


def suits_linear(linear: fx.Node) -> bool:
    """Whether this fused linear layer or GEGLU computes in eight bits."""
    given = arguments(linear)
    return _runs_each_step(linear) and len(shape(given.x)) == 3 and _is_aligned(given.weight) and _is_bounded(given.x)


def suits_conv2d(conv: fx.Node) -> bool:
    """Whether this fused convolution computes in eight bits."""
    return _is_inner(conv) and any(_is_inner(later) for later in _after(conv))


def _is_inner(node: fx.Node) -> bool:
    """Whether this is a 3x3 convolution between feature maps."""
    if not is_call(node, CONV2D) or not _runs_each_step(node):
        return False
    weight = arguments(node).weight
    return shape(weight)[2:] == KERNEL and min(shape(weight)[:2]) > FEW_CHANNELS and _is_aligned(weight)


def _after(node: fx.Node) -> Iterator[fx.Node]:
    while (node := node.next).op != "root":
        yield node


def suits_upsample(conv: fx.Node) -> bool:
    """Whether this fused convolution of a doubled picture computes in eight bits."""
    return _runs_each_step(conv) and _is_aligned(arguments(conv).weight)


def _runs_each_step(node: fx.Node) -> bool:
    return stage_of(node.meta["needs"]) in (SHARED, STEP)


def _is_aligned(weight: fx.Node) -> bool:
    return all(size % ALIGNED == 0 for size in shape(weight)[:2])


def _is_bounded(x: fx.Node) -> bool:
    if is_call(x, getitem) and x.args[1] == 1:  # the second result is the norm of the sum
        return is_call(source_of(x), ADD_LAYER_NORM)
    return is_call(x, *BOUNDED)
