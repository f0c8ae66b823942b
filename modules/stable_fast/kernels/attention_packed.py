"""Attention straight from packed projections, no transposes or copies: qkv [B, L, 3 H D], or q with kv [B, S, 2 H D].

`upcast` asks for q k^T and softmax in fp32 (SD2.x overflows fp16 there). The fused back ends always accumulate and
exponentiate in fp32, so it only changes the reference path.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels._dispatch import register


def _attend_reference(q: Tensor, k: Tensor, v: Tensor, upcast: bool) -> Tensor:
    """q, k, v [B, L, H, D] -> [B, L, H * D]."""
    dtype = v.dtype
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return y.transpose(1, 2).flatten(2).to(dtype).contiguous()


def attention_packed_qkv_reference(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    return _attend_reference(*qkv.unflatten(-1, (3, heads, -1)).unbind(2), upcast)


def attention_packed_kv_reference(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    k, v = kv.unflatten(-1, (2, heads, -1)).unbind(2)
    return _attend_reference(q.unflatten(-1, (heads, -1)), k, v, upcast)


def _attention_packed_qkv(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    return attention_packed_qkv_reference(qkv, heads, upcast)


def _attention_packed_kv(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    return attention_packed_kv_reference(q, kv, heads, upcast)


def _fake_qkv(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    return qkv.new_empty((*qkv.shape[:2], qkv.shape[2] // 3))


def _fake_kv(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


register("attention_packed_qkv(Tensor qkv, int heads, bool upcast) -> Tensor", _attention_packed_qkv, _fake_qkv)
register("attention_packed_kv(Tensor q, Tensor kv, int heads, bool upcast) -> Tensor", _attention_packed_kv, _fake_kv)
