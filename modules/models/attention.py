"""The attention function used by all networks, and the transformer that mixes text into the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.models.configs import UNetConfig


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *, upcast: bool = False, causal: bool = False) -> Tensor:
    """Computes multi-head attention: q [B, L, heads*d], k and v [B, S, heads*d] -> [B, L, heads*d].

    `upcast` computes fp16 scores in fp32, since SD2.x's scores overflow fp16. CUDA's fused kernels keep scores in
    fp32 anyway, so `upcast` has no cost or effect there.
    """
    dtype = q.dtype
    if upcast and dtype == torch.float16 and not q.is_cuda:
        q, k, v = q.float(), k.float(), v.float()
    batch, length, width = q.shape
    q, k, v = (t.view(batch, t.shape[1], heads, width // heads).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return out.transpose(1, 2).reshape(batch, length, width).to(dtype)


class CrossAttention(nn.Module):
    """Attention from `width` channels to a context of `context_dim` channels (self-attention without a context)."""

    def __init__(self, width: int, context_dim: int, heads: int, *, upcast: bool) -> None:
        super().__init__()
        self.heads = heads
        self.upcast = upcast
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_dim, width, bias=False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Identity())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        out = attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads, upcast=self.upcast)
        return self.to_out(out)


class GEGLU(nn.Module):
    """GEGLU(x) = (xV + c) * GELU(xW + b), one projection for both halves (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Position-wise network of a transformer block, with a hidden layer four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, width * 4), nn.Identity(), nn.Linear(width * 4, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text and feed-forward, each with a LayerNorm and a residual connection."""

    def __init__(self, width: int, config: UNetConfig) -> None:
        super().__init__()
        heads = config.heads_at(width)
        self.attn1 = CrossAttention(width, width, heads, upcast=config.upcast_attention)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, config.context_dim, heads, upcast=config.upcast_attention)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of a feature map [B, C, h, w].

    The projections around the blocks are linear layers in SD2.x and SDXL, and 1x1 convolutions in SD1.x.
    """

    def __init__(self, width: int, depth: int, config: UNetConfig) -> None:
        super().__init__()
        self.linear_projection = config.linear_projection
        self.norm = nn.GroupNorm(config.groups, width, eps=1e-6)
        self.proj_in: nn.Module = nn.Linear(width, width) if self.linear_projection else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, config) for _ in range(depth)])
        self.proj_out: nn.Module = nn.Linear(width, width) if self.linear_projection else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        h = self.norm(x)
        if not self.linear_projection:
            h = self.proj_in(h)
        h = h.permute(0, 2, 3, 1).reshape(batch, height * columns, width)
        if self.linear_projection:
            h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = block(h, context)
        if self.linear_projection:
            h = self.proj_out(h)
        h = h.reshape(batch, height, columns, width).permute(0, 3, 1, 2).contiguous()
        if not self.linear_projection:
            h = self.proj_out(h)
        return x + h
