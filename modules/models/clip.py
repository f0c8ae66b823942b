"""The text encoders, each with its checkpoint's key names.

CLIP ViT-L belongs to SD1.x and SDXL, OpenCLIP ViT-H to SD2.x, and OpenCLIP ViT-bigG to SDXL.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.core.device import sent
from modules.models.attention import attention
from modules.models.configs import TextConfig


def gelu(x: Tensor, kind: str) -> Tensor:
    """Applies x * sigmoid(1.702 x) for OpenAI's CLIP, or the exact GELU for OpenCLIP."""
    return x * torch.sigmoid(1.702 * x) if kind == "quick_gelu" else F.gelu(x)


class ClipEmbeddings(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.positions, config.width)


class ClipAttention(nn.Module):
    """Causal self-attention with separate projections (Hugging Face naming)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=True))


class ClipMLP(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x), self.activation))


class ClipLayer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = ClipAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.width)
        self.mlp = ClipMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEncoder(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(config) for _ in range(config.layers)])


class ClipTextTransformer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(config)
        self.encoder = ClipEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width)


class ClipTextModel(nn.Module):
    """CLIP's text transformer (Radford et al. 2021, arXiv 2103.00020), keys `text_model.…`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = ClipTextTransformer(config)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> embeddings [B, L, width] without positions, so textual inversion can replace rows."""
        table = self.text_model.embeddings.token_embedding
        return table(sent(ids, table.weight.device))

    def forward(self, embeddings: Tensor, skip: int = 0) -> Tensor:
        """Hidden states [B, L, width] without the last `skip` layers, after the final norm if the family uses it."""
        x = embeddings + self.text_model.embeddings.position_embedding.weight[: embeddings.shape[1]]
        layers = self.text_model.encoder.layers
        for layer in layers[: len(layers) - skip]:
            x = layer(x)
        return self.text_model.final_layer_norm(x) if self.config.final_norm else x


class PackedAttention(nn.Module):
    """Causal self-attention with one packed input projection (OpenCLIP naming)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.width, config.width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * config.width))
        self.out_proj = nn.Linear(config.width, config.width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return self.out_proj(attention(q, k, v, self.heads, causal=True))


class OpenClipMLP(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = nn.Linear(config.width, config.mlp_width)
        self.c_proj = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(gelu(self.c_fc(x), self.activation))


class OpenClipLayer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attn = PackedAttention(config)
        self.ln_1 = nn.LayerNorm(config.width)
        self.mlp = OpenClipMLP(config)
        self.ln_2 = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class OpenClipTransformer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([OpenClipLayer(config) for _ in range(config.layers)])


class OpenClipTextModel(nn.Module):
    """OpenCLIP's text transformer, keys `transformer.resblocks.…`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.positions, config.width))
        self.transformer = OpenClipTransformer(config)
        self.ln_final = nn.LayerNorm(config.width)
        if config.projection is not None:
            self.text_projection = nn.Parameter(torch.empty(config.width, config.projection))
            nn.init.normal_(self.text_projection, std=config.width**-0.5)
        nn.init.normal_(self.positional_embedding, std=0.01)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> embeddings [B, L, width] without positions."""
        return self.token_embedding(sent(ids, self.token_embedding.weight.device))

    def forward(
        self, embeddings: Tensor, skip: int = 0, ends: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Hidden states [B, L, width] without the last `skip` layers, after the final norm if the family uses it.

        With `ends` [B], the positions of the end marks, also the pooled output [B, projection]: the projection of the
        last layer's normalised state at the end mark, whatever `skip` is.
        """
        x = embeddings + self.positional_embedding[: embeddings.shape[1]]
        layers = list(self.transformer.resblocks)
        used = len(layers) - skip
        for layer in layers[:used]:
            x = layer(x)
        hidden = self.ln_final(x) if self.config.final_norm else x
        if ends is None:
            return hidden
        for layer in layers[used:]:
            x = layer(x)
        at_end = x.gather(1, ends[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)
        return hidden, self.ln_final(at_end) @ self.text_projection


TextModel = ClipTextModel | OpenClipTextModel


def build_text_model(config: TextConfig) -> TextModel:
    return OpenClipTextModel(config) if config.layout == "openclip" else ClipTextModel(config)


class TextEncoders(nn.ModuleDict):
    """The text encoders of one model by name ("clip_l", "clip_h", "clip_g"), in the order in which they are joined."""

    def __init__(self, configs: Iterable[TextConfig]) -> None:
        super().__init__({config.name: build_text_model(config) for config in configs})
