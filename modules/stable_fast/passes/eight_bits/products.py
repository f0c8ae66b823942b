"""Linear layers and convolutions of the fused graph become products of eight-bit numbers (fp8 e4m3 or int8).

Weights have a scale for each output channel. The weights stage quantises them, so a LoRA is merged before that, and
the numbers keep their addresses. Activations of linear layers have a scale for each token, those of convolutions one
scale, which is calibrated (see calibration/scales.py). A norm before the product writes eight bits itself, if nothing
else reads it. Not matched: layers that suits.py leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import getitem
from typing import Any

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments
from modules.stable_fast.passes.base import Editor, FusionPass, Rule, dtype_of, is_call, only_user
from modules.stable_fast.passes.eight_bits.scales import scale_of
from modules.stable_fast.passes.eight_bits.suits import (
    CONV2D,
    GEGLU,
    GEGLU_EIGHT,
    GROUP_NORM,
    GROUP_NORM_CAT,
    LAYER_NORM,
    LINEAR,
    UPSAMPLE,
    suits_conv2d,
    suits_linear,
    suits_upsample,
)

ops = torch.ops.lightdiffusion
QUANTISED_NORMS: dict[Any, Any] = {
    GROUP_NORM: ops.group_norm_silu_quantized.default,
    GROUP_NORM_CAT: ops.group_norm_silu_cat_quantized.default,
}
QUANTISED_GEGLU = ops.linear_geglu_eight_quantized.default


def quantise_linear(editor: Editor, linear: fx.Node, kind: torch.dtype) -> bool:
    if not suits_linear(linear):
        return False
    given = arguments(linear)
    q, scale = _rows(editor, linear, given.x, given.weight, kind)
    weight = _weight(editor, linear, given.weight, kind)
    others = (given.bias, given.residual, given.activation, dtype_of(linear))
    editor.replace(linear, editor.call(linear, ops.linear_eight.default, q, scale, *weight, *others))
    return True


def quantise_geglu(editor: Editor, geglu: fx.Node, kind: torch.dtype) -> bool:
    if not suits_linear(geglu):
        return False
    given = arguments(geglu)
    q, scale = _rows(editor, geglu, given.x, given.weight, kind)
    weight = _weight(editor, geglu, given.weight, kind)
    editor.replace(geglu, editor.call(geglu, GEGLU_EIGHT, q, scale, *weight, given.bias, dtype_of(geglu)))
    return True


def quantise_conv2d(editor: Editor, conv: fx.Node, kind: torch.dtype) -> bool:
    if not suits_conv2d(conv):
        return False
    given = arguments(conv)
    q, scale = _whole(editor, conv, given.x, given.weight, kind)
    weight = _weight(editor, conv, given.weight, kind)
    others = (given.bias, given.vector, given.residual, given.stride, given.padding, given.activation, dtype_of(conv))
    editor.replace(conv, editor.call(conv, ops.conv2d_eight.default, q, scale, *weight, *others))
    return True


def quantise_upsample(editor: Editor, conv: fx.Node, kind: torch.dtype) -> bool:
    if not suits_upsample(conv):
        return False
    given = arguments(conv)
    q, scale = _whole(editor, conv, given.x, given.weight, kind)
    weight = _weight(editor, conv, given.weight, kind)
    args = (q, scale, *weight, given.bias, dtype_of(conv))
    editor.replace(conv, editor.call(conv, ops.upsample_conv2d_eight.default, *args))
    return True


def _pair(editor: Editor, before: fx.Node, target: Callable[..., Any], *args: Any) -> tuple[fx.Node, fx.Node]:
    """Both results of a call."""
    both = editor.call(before, target, *args)
    return editor.call(before, getitem, both, 0), editor.call(before, getitem, both, 1)


def _weight(editor: Editor, before: fx.Node, weight: fx.Node, kind: torch.dtype) -> tuple[fx.Node, fx.Node]:
    return _pair(editor, before, ops.quantize_channels.default, weight, kind)


def _rows(editor: Editor, before: fx.Node, x: fx.Node, weight: fx.Node, kind: torch.dtype) -> tuple[fx.Node, fx.Node]:
    """x [N, T, C] in eight bits, and its scales."""
    if is_call(x, LAYER_NORM) and only_user(x) is before:
        return _pair(editor, before, ops.layer_norm_quantized.default, *x.args, kind)
    if is_call(x, GEGLU_EIGHT) and only_user(x) is before and kind == torch.float8_e4m3fn:
        scale = scale_of(editor, weight)
        return editor.call(before, QUANTISED_GEGLU, *x.args[:-1], scale, kind), scale
    return _pair(editor, before, ops.quantize_rows.default, x, kind)


def _whole(editor: Editor, before: fx.Node, x: fx.Node, weight: fx.Node, kind: torch.dtype) -> tuple[fx.Node, fx.Node]:
    """x [N, C, h, w] in eight bits, and its one scale."""
    scale = scale_of(editor, weight)
    if is_call(x, *QUANTISED_NORMS) and only_user(x) is before:
        return editor.call(before, QUANTISED_NORMS[x.target], *x.args, scale, kind), scale
    return editor.call(before, ops.quantize_tensor.default, x, scale, kind), scale


def eight_bit_pass(kind: torch.dtype) -> FusionPass:
    """The pass for numbers of this kind. Its name is in the key of a kept graph, so kinds never mix there."""
    rules = {
        # GEGLU comes before the linear layer that reads it.
        "linear_geglu": (GEGLU, quantise_geglu),
        "linear": (LINEAR, quantise_linear),
        "conv2d": (CONV2D, quantise_conv2d),
        "upsample_conv2d": (UPSAMPLE, quantise_upsample),
    }
    made = tuple(Rule(name, (anchor,), partial(rewrite, kind=kind)) for name, (anchor, rewrite) in rules.items())
    return FusionPass(f"eight_bits_{str(kind).removeprefix('torch.')}", made, lowers_precision=True)
