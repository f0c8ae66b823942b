"""Attention by the libraries: q [B, L, H, D], k and v [B, S, H, D] -> [B, L, H * D].

A bias is [B, H, L, S], and its rows suit fused kernels (see attention_heads.py). Each library has its own limits, and
refuses the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.refusals import Unsupported, unsupported_on_error


def merge_heads(y: Tensor) -> Tensor:
    """[B, H, L, D] as returned by the libraries -> [B, L, H * D]. A view if the library kept the layout of q."""
    return y.transpose(1, 2).flatten(2)


def flash(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    if bias is not None:
        raise Unsupported("flash attention takes no bias")
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with unsupported_on_error("flash attention"):
        return merge_heads(
            torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, is_causal=causal, scale=scale)[0]
        )


def cudnn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with unsupported_on_error("cuDNN attention"):
        attend = torch.ops.aten._scaled_dot_product_cudnn_attention
        return merge_heads(attend(q, k, v, bias, False, is_causal=causal, scale=scale)[0])


def efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with unsupported_on_error("memory-efficient attention"):
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        return merge_heads(attend(q, k, v, bias, False, is_causal=causal, scale=scale)[0])
