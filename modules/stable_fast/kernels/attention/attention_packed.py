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
from modules.stable_fast.kernels.attention.libraries import cudnn, efficient, flash, merge_heads
from modules.stable_fast.kernels.attention.specialized import SPECIALIZED_TILES, launch_specialized
from modules.stable_fast.kernels.attention.strided import ATTENTION_TILES, launch_attention, suits_tma
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import CardClass, card_class, uses_kernels
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import HAS_GLUON

_Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend_reference(q: Tensor, k: Tensor, v: Tensor, upcast: bool) -> Tensor:
    """q, k, v [B, L, H, D] -> [B, L, H * D]."""
    dtype = v.dtype
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return y.transpose(1, 2).flatten(2).to(dtype).contiguous()


def attention_packed_qkv_reference(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    return attend_reference(q, k, v, upcast)


def attention_packed_kv_reference(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    k, v = kv.unflatten(-1, (2, heads, -1)).unbind(2)
    return attend_reference(q.unflatten(-1, (heads, -1)), k, v, upcast)


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
    return merge_heads(torch.matmul(scores.softmax(-1), v))


_LIBRARIES: dict[str, _Attention] = {"flash": flash, "cudnn": cudnn, "efficient": efficient} | (
    {"xformers": _xformers} if importlib.util.find_spec("xformers") is not None else {}
)
_TILES: dict[str, _Attention] = {tile.name: partial(launch_attention, tile=tile) for tile in ATTENTION_TILES} | {
    tile.name: partial(launch_cross, tile=tile) for tile in CROSS_TILES
}
_SPECIALIZED: dict[str, _Attention] = {
    tile.name: partial(launch_specialized, tile=tile) for tile in SPECIALIZED_TILES if HAS_GLUON
}
CANDIDATES = Candidates(_LIBRARIES, _TILES, _TILES | _SPECIALIZED)
LARGE_HEAD: dict[str, _Attention] = {"efficient": efficient, "two_products": _two_products}
# Limit for the scores that a large head keeps in memory at once.
MAX_SCORE_BYTES = 256 << 20


# cuDNN takes half as long as flash attention for long rows: measured on an H200; PyTorch prefers it on a B200 as well.
CUDNN_IS_FAST = (CardClass.WGMMA, CardClass.TCGEN05)


def _chain(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """The names that are tried in turn without tuning.

    The specialised kernel starts slowly, so it needs about a thousand scores per row.
    """
    (batch, length, heads, size), keys, card = q.shape, k.shape[1], card_class(q)
    if size > 256:
        fits = batch * heads * length * keys * q.element_size() <= MAX_SCORE_BYTES
        return ["two_products", "efficient"] if fits else ["efficient", "two_products"]
    if card is CardClass.TURING or size % 8 != 0:
        return ["efficient"]
    chain = [*(["cudnn"] if card in CUDNN_IS_FAST and size <= 128 else []), "flash"]
    if keys <= MOST_KEYS and size <= 128:
        chain.insert(0, CROSS_TILES[0].name)
    elif _SPECIALIZED and card is CardClass.WGMMA and keys >= 1024 and size <= 64 and suits_tma(q, k, v):
        chain.insert(0, SPECIALIZED_TILES[0].name)
    return [*chain, *(tile.name for tile in ATTENTION_TILES), "efficient"]


def attend(q: Tensor, k: Tensor, v: Tensor, upcast: bool) -> Tensor:
    """q [B, L, H, D], k and v [B, S, H, D]: views into packed projections."""
    key = (*q.shape, k.shape[1], dtype_key(q))
    candidates = LARGE_HEAD if q.shape[-1] > 256 else CANDIDATES.on(card_class(q))
    reference = partial(attend_reference, q, k, v, upcast)
    return run_chosen("attention_packed", key, candidates, _chain(q, k, v), (q, k, v), reference)


def _attention_packed_qkv(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    if not uses_kernels(qkv):
        return attention_packed_qkv_reference(qkv, heads, upcast)
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    return attend(q, k, v, upcast)


def _attention_packed_kv(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    if not uses_kernels(q):
        return attention_packed_kv_reference(q, kv, heads, upcast)
    k, v = kv.unflatten(-1, (2, heads, -1)).unbind(2)
    return attend(q.unflatten(-1, (heads, -1)), k, v, upcast)


def _fake_qkv(qkv: Tensor, heads: int, upcast: bool) -> Tensor:
    return qkv.new_empty((*qkv.shape[:2], qkv.shape[2] // 3))


def _fake_kv(q: Tensor, kv: Tensor, heads: int, upcast: bool) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


register("attention_packed_qkv(Tensor qkv, int heads, bool upcast) -> Tensor", _attention_packed_qkv, _fake_qkv)
register("attention_packed_kv(Tensor q, Tensor kv, int heads, bool upcast) -> Tensor", _attention_packed_kv, _fake_kv)
