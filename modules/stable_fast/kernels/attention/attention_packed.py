"""Attention directly on packed projections, without transposes or copies: qkv [B, L, 3 H D], or q and kv [B, S, 2 H D].

With `upcast`, q k^T and softmax are in fp32, because SD2.x overflows fp16 there. The fused implementations always
accumulate and exponentiate in fp32, so `upcast` only changes the reference.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.attention.cross import CROSS_TILES, MOST_KEYS, launch_cross
from modules.stable_fast.kernels.attention.specialized import SPECIALIZED_TILES, launch_specialized
from modules.stable_fast.kernels.attention.strided import ATTENTION_TILES, launch_attention, suits_tma
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import is_ampere_or_newer, is_hopper, uses_kernels
from modules.stable_fast.kernels.refusals import Unsupported, unsupported_on_error
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import HAS_GLUON


def _attend_reference(q: Tensor, k: Tensor, v: Tensor, upcast: bool) -> Tensor:
    """q, k, v [B, L, H, D] -> [B, L, H * D]."""
    dtype = v.dtype
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return y.transpose(1, 2).flatten(2).to(dtype).contiguous()


def attention_packed_qkv_reference(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    return _attend_reference(q, k, v, upcast)


def attention_packed_kv_reference(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    k, v = kv.unflatten(-1, (2, heads, -1)).unbind(2)
    return _attend_reference(q.unflatten(-1, (heads, -1)), k, v, upcast)


def _merge_heads(y: Tensor) -> Tensor:
    """[B, H, L, D] as returned by the libraries -> [B, L, H * D]. A view if the library kept the layout of q."""
    return y.transpose(1, 2).flatten(2)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with unsupported_on_error("flash attention"):
        return _merge_heads(torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0])


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with unsupported_on_error("cuDNN attention"):
        return _merge_heads(torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False)[0])


def _efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    with unsupported_on_error("memory-efficient attention"):
        return _merge_heads(torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0])


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention_forward  # pyright: ignore[reportMissingImports]  # optional

    try:
        return memory_efficient_attention_forward(q, k, v).flatten(2)
    except (NotImplementedError, ValueError) as error:
        raise Unsupported(f"xformers refuses {tuple(q.shape)}: {error}") from error


def _two_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two matrix products with the scores in memory, for a head too large for fused kernels, such as the VAE's."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    return _merge_heads(torch.matmul(scores.softmax(-1), v))


IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = (
    {"flash": _flash, "cudnn": _cudnn, "efficient": _efficient}
    | {tile.name: partial(launch_attention, tile=tile) for tile in ATTENTION_TILES}
    | {tile.name: partial(launch_cross, tile=tile) for tile in CROSS_TILES}
    | {tile.name: partial(launch_specialized, tile=tile) for tile in SPECIALIZED_TILES if HAS_GLUON}
    | ({"xformers": _xformers} if importlib.util.find_spec("xformers") is not None else {})
)
LARGE_HEAD = {"efficient": _efficient, "two_products": _two_products}
# Limit for the scores that a large head keeps in memory at once.
MAX_SCORE_BYTES = 256 << 20


def _default(q: Tensor, k: Tensor, v: Tensor) -> str:
    """The choice without tuning. The specialised kernel starts slowly, so it needs about a thousand scores per row."""
    (batch, length, heads, size), keys = q.shape, k.shape[1]
    if size > 256:
        fits = batch * heads * length * keys * q.element_size() <= MAX_SCORE_BYTES
        return "two_products" if fits else "efficient"
    if not is_ampere_or_newer(q) or size % 8 != 0:
        return "efficient"
    if keys <= MOST_KEYS and size <= 128:
        return CROSS_TILES[0].name
    if HAS_GLUON and is_hopper(q) and keys >= 1024 and size <= 64 and all(suits_tma(x) for x in (q, k, v)):
        return SPECIALIZED_TILES[0].name
    # Measured on an H200: for long rows, cuDNN takes half as long as flash attention.
    if is_hopper(q) and size <= 128:
        return "cudnn"
    return "flash"


def _attend(q: Tensor, k: Tensor, v: Tensor, upcast: bool) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D]: views into packed projections."""
    key = (*q.shape, k.shape[1], dtype_key(q))
    candidates = LARGE_HEAD if q.shape[-1] > 256 else IMPLEMENTATIONS
    reference = partial(_attend_reference, q, k, v, upcast)
    return run_chosen("attention_packed", key, candidates, _default(q, k, v), (q, k, v), reference)


def _attention_packed_qkv(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    if not uses_kernels(qkv):
        return attention_packed_qkv_reference(qkv, heads, upcast)
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    return _attend(q, k, v, upcast)


def _attention_packed_kv(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    if not uses_kernels(q):
        return attention_packed_kv_reference(q, kv, heads, upcast)
    k, v = kv.unflatten(-1, (2, heads, -1)).unbind(2)
    return _attend(q.unflatten(-1, (heads, -1)), k, v, upcast)


def _fake_qkv(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    return qkv.new_empty((*qkv.shape[:2], qkv.shape[2] // 3))


def _fake_kv(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


register("attention_packed_qkv(Tensor qkv, int heads, bool upcast) -> Tensor", _attention_packed_qkv, _fake_qkv)
register("attention_packed_kv(Tensor q, Tensor kv, int heads, bool upcast) -> Tensor", _attention_packed_kv, _fake_kv)
