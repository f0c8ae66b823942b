"""Which layers compute in eight bits. The others stay as they are, because rounding them costs most or saves nothing.

A linear layer does if the operation before it writes normalised or bounded values: a norm, attention, GEGLU. Left out
by that: 1x1 shortcuts and the projection out of a transformer, which read the sum of all layers before them. A
convolution does if it has a 3x3 kernel. Left out by their few channels: the first and the last. Nothing does that needs
the prompt or the time only, since it does not run in each step: keys and values of the prompt, the time's embedding.
"""

from __future__ import annotations

from operator import getitem

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.graph.layout import as_image, as_tokens
from modules.stable_fast.graph.staging import SHARED, STEP, stage_of
from modules.stable_fast.passes.base import is_call, only_user, shape

ops = torch.ops.lightdiffusion
LAYER_NORM, ADD_LAYER_NORM = ops.layer_norm.default, ops.add_layer_norm.default
GROUP_NORM, GROUP_NORM_CAT = ops.group_norm_silu.default, ops.group_norm_silu_cat.default
GEGLU, GEGLU_EIGHT = ops.linear_geglu.default, ops.linear_geglu_eight.default
LINEAR, CONV2D, UPSAMPLE = ops.linear_epilogue.default, ops.conv2d_epilogue.default, ops.upsample_conv2d.default
BOUNDED = (
    *(LAYER_NORM, GROUP_NORM, GROUP_NORM_CAT, GEGLU, GEGLU_EIGHT),
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
    weight = arguments(conv).weight
    is_inner = min(shape(weight)[:2]) > FEW_CHANNELS
    return _runs_each_step(conv) and shape(weight)[2:] == KERNEL and is_inner and _is_aligned(weight)


def suits_upsample(conv: fx.Node) -> bool:
    """Whether this fused convolution of a doubled picture computes in eight bits."""
    return _runs_each_step(conv) and _is_aligned(arguments(conv).weight)


def _runs_each_step(node: fx.Node) -> bool:
    return stage_of(node.meta["needs"]) in (SHARED, STEP)


def _is_aligned(weight: fx.Node) -> bool:
    return all(size % ALIGNED == 0 for size in shape(weight)[:2])


def _is_bounded(x: fx.Node) -> bool:
    source = without_views(x)
    if is_call(source, getitem) and source.args[1] == 1:  # the second result is the norm of the sum
        source = source_of(source)
        return is_call(source, ADD_LAYER_NORM)
    return is_call(source, *BOUNDED)


def without_views(x: fx.Node) -> fx.Node:
    """The feature map or tokens whose memory `x` shows."""
    while is_call(x, as_tokens, as_image):
        x = source_of(x)
    return x


def read_once(x: fx.Node) -> bool:
    """Whether there is one reader of `x`, and of what it shows."""
    while is_call(x, as_tokens, as_image):
        if only_user(x) is None:
            return False
        x = source_of(x)
    return only_user(x) is not None
