"""Attention on heads as networks give them, q [B, H, L, D] with any strides, to [B, L, H * D].

A bias is added to the scores, as in T5, and a scale may take the place of 1 / sqrt(D). Without these, the candidates
and choices are those of attention_packed. `attention_bias` lays a bias out once for all layers: fused kernels read its
rows as they are, next to each other and aligned. PyTorch gives any other to three kernels, and multiplies in fp32.
"""

from __future__ import annotations

import math
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.attention.attention_packed import CUDNN_IS_FAST, attend
from modules.stable_fast.kernels.attention.libraries import cudnn, efficient, flash
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import CardClass, card_class, uses_kernels
from modules.stable_fast.kernels.registry import register, run_chosen

# In elements: rows of fp16 start at multiples of 16 bytes.
ALIGNMENT = 8
WITH_BIAS = {"efficient": efficient, "cudnn": cudnn}
WITHOUT_BIAS = {"flash": flash, "cudnn": cudnn, "efficient": efficient}


def attention_heads_reference(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal, scale=scale)
    return y.transpose(1, 2).flatten(2).contiguous()


def attention_bias_reference(bias: Tensor) -> Tensor:
    return _fake_bias(bias).copy_(bias)


def _suits(bias: Tensor) -> bool:
    return bias.stride(-1) == 1 and all(stride % ALIGNMENT == 0 for stride in bias.stride()[:-1])


def _chain(q: Tensor, *, has_bias: bool) -> list[str]:
    if has_bias:
        return ["efficient", "cudnn"]
    first = ["cudnn"] if card_class(q) in CUDNN_IS_FAST and q.shape[-1] <= 128 else []
    return ["efficient"] if card_class(q) is CardClass.TURING else [*first, "flash", "efficient"]


def _attention_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    reference = partial(attention_heads_reference, q, k, v, bias, causal, scale)
    if not uses_kernels(q):
        return reference()
    heads = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    usual = scale is None or math.isclose(scale, q.shape[-1] ** -0.5)
    if bias is None and usual and not causal:
        return attend(*heads, False).contiguous()
    if bias is not None:
        bias = (bias if _suits(bias) else attention_bias_reference(bias)).expand(*q.shape[:3], k.shape[2])
    key = (*heads[0].shape, k.shape[2], bias is not None, causal, dtype_key(q))
    table, chain = WITHOUT_BIAS if bias is None else WITH_BIAS, _chain(q, has_bias=bias is not None)
    args = (*heads, bias, causal, scale)
    return run_chosen("attention_heads", key, table, chain, args, reference).contiguous()


def _fake(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    batch, heads, length, _ = q.shape
    return q.new_empty((batch, length, heads * v.shape[-1]))


def _fake_bias(bias: Tensor) -> Tensor:
    """A new tensor like this, whose rows have a multiple of ALIGNMENT elements, in memory."""
    *rows, keys = bias.shape
    return bias.new_empty((*rows, -(-keys // ALIGNMENT) * ALIGNMENT))[..., :keys]


register(
    "attention_heads(Tensor q, Tensor k, Tensor v, Tensor? bias, bool causal, float? scale) -> Tensor",
    _attention_heads,
    _fake,
)
register("attention_bias(Tensor bias) -> Tensor", attention_bias_reference, _fake_bias)
