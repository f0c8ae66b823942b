"""RMSNorm over the last dimension becomes lightdiffusion.rms_norm, or add_rms_norm if an addition precedes it.

Matched as torch.nn.RMSNorm calls it and as T5, Llama and diffusers write it out:

    wide = x.to(float32);  y = (x or wide) * rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps);  weight * y.to(x.dtype)

Not matched: norms without an epsilon of their own or over several dimensions, and those whose parts have other readers.
"""

from __future__ import annotations

import torch
from torch import fx

from modules.stable_fast.graph.arguments import arguments, source_of
from modules.stable_fast.passes.base import (
    Editor,
    FusionPass,
    Rule,
    dtype_of,
    either_way,
    is_call,
    is_tensor,
    only_user,
    same_stage,
    shape,
)
from modules.stable_fast.passes.layer_norm import fuse_addition

aten = torch.ops.aten
RMS_NORM = torch.ops.lightdiffusion.rms_norm.default
ADD_RMS_NORM = torch.ops.lightdiffusion.add_rms_norm.default


def fuse_called(editor: Editor, norm: fx.Node) -> bool:
    given = arguments(norm)
    if len(given.normalized_shape) != 1 or given.eps is None:
        return False
    editor.replace(norm, editor.call(norm, RMS_NORM, given.input, given.weight, given.eps))
    return True


def fuse_written_out(editor: Editor, product: fx.Node) -> bool:
    """x * rsqrt(mean(x^2) + eps), together with the conversion to and from float32."""
    for factor, root in either_way(product):
        found = _squared_before(root)
        if found is None or not isinstance(factor, fx.Node):
            continue
        wide, eps = found
        x = source_of(wide) if is_call(wide, aten.to.dtype) else wide
        if factor not in (x, wide) or shape(x) != shape(product):
            continue
        last = product if dtype_of(product) == dtype_of(x) else only_user(product)
        if last is None or dtype_of(last) != dtype_of(x) or not (last is product or is_call(last, aten.to.dtype)):
            continue
        editor.replace(last, editor.call(last, RMS_NORM, x, None, eps))
        return True
    return False


def _squared_before(root: object) -> tuple[fx.Node, float] | None:
    """The value whose mean square this is the reciprocal root of, and the epsilon."""
    if not is_call(root, aten.rsqrt.default):
        return None
    total = source_of(root)
    if not is_call(total, aten.add.Tensor) or not isinstance(total.args[1], float) or total.kwargs:
        return None
    mean = source_of(total)
    if not is_call(mean, aten.mean.dim) or not arguments(mean).keepdim:
        return None
    square, given = source_of(mean), arguments(mean)
    if not is_call(square, aten.pow.Tensor_Scalar) or arguments(square).exponent != 2:
        return None
    last = len(shape(square)) - 1
    private = all(only_user(node) is not None for node in (root, total, mean, square))
    return (source_of(square), total.args[1]) if private and list(given.dim) in ([-1], [last]) else None


def fuse_weight(editor: Editor, product: fx.Node) -> bool:
    for norm, weight in either_way(product):
        if not (is_call(norm, RMS_NORM) and is_tensor(weight)) or only_user(norm) is None:
            continue
        given = arguments(norm)
        fits = shape(weight) == shape(norm)[-1:] and dtype_of(weight) == dtype_of(norm) == dtype_of(product)
        if given.weight is None and fits and same_stage(norm, product):
            editor.replace(product, editor.call(product, RMS_NORM, given.x, weight, given.eps))
            return True
    return False


def fuse_add(editor: Editor, norm: fx.Node) -> bool:
    given = arguments(norm)
    return fuse_addition(editor, norm, ADD_RMS_NORM, given.weight, given.eps)


PASS = FusionPass(
    "rms_norm",
    (
        Rule("called", (aten.rms_norm.default,), fuse_called),
        Rule("written_out", (aten.mul.Tensor,), fuse_written_out),
        Rule("weight", (aten.mul.Tensor,), fuse_weight),
    ),
)
ADD_PASS = FusionPass("add_rms_norm", (Rule("add_rms_norm", (RMS_NORM,), fuse_add),))
