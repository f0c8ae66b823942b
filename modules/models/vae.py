"""The KL autoencoder between pictures and latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.models.attention import attention
from modules.models.configs import VAEConfig


_WORKING_BYTES = 2178 * 64  # per latent cell and byte of the dtype, at 128 base channels (measured by ComfyUI)


def working_bytes(config: VAEConfig, cells: int, dtype: torch.dtype) -> float:
    """Returns the memory that decoding or encoding this many latent cells at once takes, besides the weights."""
    return _WORKING_BYTES * cells * dtype.itemsize * config.channels[0] / 128


def norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions plus a skip connection."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = norm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all cells."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(groups, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = attention(q, k, v, heads=1)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class VAEDownsample(nn.Module):
    """Halves the size with a strided convolution, padded on the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class VAEUpsample(nn.Module):
    """Doubles the size by nearest-neighbour upsampling, then applies a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ResolutionLevel(nn.Module):
    """The residual blocks of one resolution, and the layer that changes to the next one."""

    def __init__(self, in_channels: int, channels: int, blocks: int, groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [ResnetBlock(in_channels if i == 0 else channels, channels, groups) for i in range(blocks)]
        )
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    """Residual block, attention and residual block at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Picture [B, 3, H, W] -> latent mean and log-variance, stacked as [B, 2 * latent_channels, H/8, W/8]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.channels[0]
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        for index, channels in enumerate(config.channels):
            level = ResolutionLevel(width, channels, config.res_blocks, config.groups)
            if index < len(config.channels) - 1:
                level.downsample = VAEDownsample(channels)
            self.down.append(level)
            width = channels
        self.mid = Middle(width, config.groups)
        self.norm_out = norm(config.groups, width)
        self.conv_out = nn.Conv2d(width, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latent [B, latent_channels, h, w] -> picture [B, 3, 8h, 8w].

    `up` is numbered from the finest level, as in the checkpoint.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid = Middle(width, config.groups)
        levels: list[ResolutionLevel] = []
        for index in reversed(range(len(config.channels))):
            channels = config.channels[index]
            level = ResolutionLevel(width, channels, config.res_blocks + 1, config.groups)
            if index > 0:
                level.upsample = VAEUpsample(channels)
            levels.insert(0, level)
            width = channels
        self.up = nn.ModuleList(levels)
        self.norm_out = norm(config.groups, width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class AutoencoderKL(nn.Module):
    """KL autoencoder of latent diffusion (arXiv 2112.10752); `encode` and `decode` leave latents unscaled."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def scale(self, z: Tensor) -> Tensor:
        """Converts the encoder's latents [B, latent_channels, h, w] to those that the UNet reads."""
        mean, std = self._statistics(z)
        return (z - mean) / std * self.config.scale_factor

    def unscale(self, latent: Tensor) -> Tensor:
        """Converts the UNet's latents [B, latent_channels, h, w] to those that the decoder reads."""
        mean, std = self._statistics(latent)
        return latent / self.config.scale_factor * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Returns the mean and standard deviation of each channel's latents, [latent_channels, 1, 1]."""
        mean, std = self.config.latent_mean, self.config.latent_std
        if not mean or not std:
            return 0.0, 1.0
        return like.new_tensor(mean)[:, None, None], like.new_tensor(std)[:, None, None]

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance [B, latent_channels, H/8, W/8] of a picture [B, 3, H, W] in -1..1."""
        mean, logvar = self.quant_conv(self.encoder(image)).chunk(2, dim=1)
        return mean, torch.clamp(logvar, -30.0, 20.0)

    def encode(self, image: Tensor) -> Tensor:
        """Encodes to the posterior mean, which is reproducible because no noise is drawn."""
        return self.encode_moments(image)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """Unscaled latent [B, latent_channels, h, w] -> picture [B, 3, 8h, 8w] in about -1..1, not clamped."""
        return self.decoder(self.post_quant_conv(latent))
