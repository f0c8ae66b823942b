"""The UNet that predicts noise (or velocity), built from a config."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.models.attention import SpatialTransformer
from modules.models.configs import UNetConfig
from modules.models.layers import Downsample, ResBlock, Upsample, timestep_embedding


class Block(nn.ModuleList):
    """Layers that run in sequence, each with the inputs it needs; numbered as in the checkpoint."""

    def forward(self, x: Tensor, time: Tensor, context: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, time)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            elif isinstance(layer, Upsample):
                x = layer(x, size)
            else:
                x = layer(x)
        return x


def embedding_mlp(inputs: int, config: UNetConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, config.time_dim), nn.SiLU(), nn.Linear(config.time_dim, config.time_dim))


class TimedNetwork(nn.Module):
    """A network that reads a time embedding, to which SDXL adds the embedding of a vector (`vector_dim`)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = embedding_mlp(config.channels[0], config)
        self.label_emb = nn.Sequential(embedding_mlp(config.vector_dim, config)) if config.vector_dim else None

    def embed_time(self, timesteps: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Returns [B, time_dim] for timesteps [B] float32 and, in SDXL, vector [B, vector_dim].

        Raises ValueError if a vector is given to a network that reads none, or left out.
        """
        if (self.label_emb is None) != (vector is None):
            raise ValueError(f"This network reads a vector of width {self.config.vector_dim}.")
        time = self.time_embed(timestep_embedding(timesteps, self.config.channels[0]).to(dtype))
        return time if self.label_emb is None else time + self.label_emb(vector)


def encoder_blocks(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """Builds the input blocks of a UNet or ControlNet, and lists the channels of their skip connections."""
    width = config.channels[0]
    blocks = nn.ModuleList([Block([nn.Conv2d(config.in_channels, width, 3, padding=1)])])
    skips = [width]
    for level, channels in enumerate(config.channels):
        for _ in range(config.res_blocks):
            layers: list[nn.Module] = [ResBlock(width, channels, config.time_dim, config.groups)]
            if depth := config.depths[level]:
                layers.append(SpatialTransformer(channels, depth, config))
            blocks.append(Block(layers))
            skips.append(channels)
            width = channels
        if level < len(config.channels) - 1:
            blocks.append(Block([Downsample(width)]))
            skips.append(width)
    return blocks, skips


def middle_block(config: UNetConfig) -> Block:
    width = config.channels[-1]

    def residual() -> ResBlock:
        return ResBlock(width, width, config.time_dim, config.groups)

    if config.middle_depth is None:
        return Block([residual()])
    return Block([residual(), SpatialTransformer(width, config.middle_depth, config), residual()])


def decoder_blocks(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """Builds the output blocks; each takes the features concatenated with the last unused skip connection."""
    skips = list(skips)
    width = config.channels[-1]
    blocks = nn.ModuleList()
    for level in reversed(range(len(config.channels))):
        channels = config.channels[level]
        for index, depth in enumerate(config.decoder_depths(level)):
            layers: list[nn.Module] = [ResBlock(width + skips.pop(), channels, config.time_dim, config.groups)]
            width = channels
            if depth:
                layers.append(SpatialTransformer(channels, depth, config))
            if level > 0 and index == config.res_blocks:
                layers.append(Upsample(channels))
            blocks.append(Block(layers))
    return blocks


def feature_places(config: UNetConfig) -> list[int]:
    """Returns the input block after which a T2I-Adapter's feature of each level is added.

    It is the level's last residual block if the level has attention or is the last one, else its downsampling.
    """
    last = len(config.channels) - 1
    steps = config.res_blocks + 1
    return [(level + 1) * steps - int(depth > 0 or level == last) for level, depth in enumerate(config.depths)]


class UNet(TimedNetwork):
    """Latent-diffusion UNet (Rombach et al. 2022, arXiv 2112.10752; SDXL: Podell et al. 2023, arXiv 2307.01952)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.input_blocks, skips = encoder_blocks(config)
        self.middle_block = middle_block(config)
        self.output_blocks = decoder_blocks(config, skips)
        width = config.channels[0]
        self.out = nn.Sequential(
            nn.GroupNorm(config.groups, width), nn.SiLU(), nn.Conv2d(width, config.out_channels, 3, padding=1)
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: tuple[Tensor, ...] | None = None,
        vector: Tensor | None = None,
        deep: Tensor | None = None,
        outer: int = 0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Evaluates the network once.

        x [B, in_channels, h, w], timesteps [B] float32 in 0..999, context [B, S, context_dim]
        -> [B, out_channels, h, w]. `control`: one residual per input block, then one for the middle block
        (the order of a ControlNet's output), then the features of a T2I-Adapter: one per level, and one for the
        middle block if there is one more. Without residuals, only features. `vector` [B, vector_dim]: for SDXL, and
        for no other network.

        With `outer`, the result is a pair: the output and the deep features, which enter the last `outer` output
        blocks. With `deep` features of an earlier evaluation, only the first `outer` input blocks and the last `outer`
        output blocks run, and the result is the output alone (DeepCache: Ma et al. 2023, arXiv 2312.00858).
        """
        time = self.embed_time(timesteps, vector, x.dtype)
        residuals, features = self._parted(control or ())
        last = len(self.output_blocks)
        if deep is not None:
            _, skips = self._encode(x, time, context, residuals, features, outer)
            return self.out(self._decode(deep, skips, time, context, range(last - outer, last)))
        x, skips = self._encode(x, time, context, residuals, features, last)
        x = self.middle_block(x, time, context)
        if len(features) > len(feature_places(self.config)):
            x = x + features[-1]
        if residuals:
            x = x + residuals[-1]
        deep = self._decode(x, skips, time, context, range(last - outer))
        out = self.out(self._decode(deep, skips, time, context, range(last - outer, last)))
        return (out, deep) if outer else out

    def _encode(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        residuals: tuple[Tensor, ...],
        features: tuple[Tensor, ...],
        count: int,
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs the first `count` input blocks. Returns the last one's features and all skip connections."""
        places = feature_places(self.config)
        skips: list[Tensor] = []
        for index in range(count):
            x = self.input_blocks[index](x, time, context)
            if features and index in places:
                x = x + features[places.index(index)]
            skips.append(x)
        if residuals:
            skips = [skip + residual for skip, residual in zip(skips, residuals[:count], strict=True)]
        return x, skips

    def _decode(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, which: range) -> Tensor:
        """Runs these output blocks, each on the last of the skip connections, which it takes out of the list."""
        for index in which:
            skip = skips.pop()
            size = (skips[-1].shape[-2], skips[-1].shape[-1]) if skips else None
            x = self.output_blocks[index](torch.cat([x, skip], dim=1), time, context, size)
        return x

    def _parted(self, control: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Separates a ControlNet's residuals from a T2I-Adapter's features."""
        residuals = len(self.input_blocks) + 1
        count = residuals if len(control) >= residuals else 0
        return control[:count], control[count:]
