"""The union ControlNet (xinsir's, for SDXL): one network for several kinds of control picture."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.models.configs import UNetConfig
from modules.models.controlnet import ControlNet
from modules.models.layers import timestep_embedding


@dataclass(frozen=True, kw_only=True)
class UnionConfig:
    """What a union ControlNet adds: the number of `kinds`, and the `layers` of its transformer.

    `time_width`: the width of the embedding that tells for each kind whether it is in use.
    """

    kinds: int = 8
    time_width: int = 256
    layers: int = 1


class KindMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x))  # the quick GELU of CLIP


class KindBlock(nn.Module):
    """A transformer block over the mean of the hint's features [B, width].

    The original attends across the batch, whose rows are the same picture, so each row gets its own value. We compute
    that value, so pictures made together do not mix.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 1)  # the number of heads does not matter for values
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = KindMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        width = x.shape[-1]
        value = functional.linear(self.ln_1(x), weight[2 * width :], bias[2 * width :])
        x = x + self.attn.out_proj(value)
        return x + self.mlp(self.ln_2(x))


class KindEmbedding(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(x)))


class UnionControlNet(ControlNet):
    """A ControlNet that is told the kind of its hint, by a number. Names are cldm's and, for the kinds, diffusers'."""

    def __init__(self, config: UNetConfig, union: UnionConfig, hint_channels: int = 3) -> None:
        super().__init__(config, hint_channels)
        width = config.channels[0]
        self.union = union
        self.kind = 0
        self.task_embedding = nn.Parameter(torch.empty(union.kinds, width))
        self.transformer_layes = nn.ModuleList([KindBlock(width) for _ in range(union.layers)])  # their spelling
        self.spatial_ch_projs = nn.Linear(width, width)
        self.control_add_embedding = KindEmbedding(union.kinds * union.time_width, config.time_dim)
        self._of_kind: dict[int, UnionControlNet] = {}

    def of_kind(self, kind: int) -> UnionControlNet:
        """Returns a network for hints of this kind, with the same weights; always the same one for the same kind."""
        if kind not in self._of_kind:
            network = copy.copy(self)
            network.kind = kind
            self._of_kind[kind] = network
        return self._of_kind[kind]

    def embed_time(self, timesteps: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        time = super().embed_time(timesteps, vector, dtype)
        in_use = (torch.arange(self.union.kinds, device=timesteps.device) == self.kind).float()
        return time + self.control_add_embedding(timestep_embedding(in_use, self.union.time_width).to(dtype).flatten())

    def guidance(self, hint: Tensor) -> Tensor:
        features = super().guidance(hint)
        mean = features.mean((2, 3)) + self.task_embedding[self.kind]
        for block in self.transformer_layes:
            mean = block(mean)
        return features + self.spatial_ch_projs(mean)[:, :, None, None]
