"""Configurations of the SD1.x and SD2.x networks, as frozen dataclasses.

Values that cannot be derived from shapes (heads, groups) follow rules that give SD1.x's constants at SD1.x's widths.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a latent-diffusion UNet: two (`res_blocks`) residual blocks at each of `len(channels)` levels.

    SD1.x fixes the number of attention heads at every level (`heads`); SD2.x fixes the width of a head (`head_dim`).
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    res_blocks: int = 2
    in_channels: int = 4
    out_channels: int = 4
    context_dim: int = 768
    heads: int | None = 8
    head_dim: int | None = None
    groups: int = 32
    linear_projection: bool = False
    upcast_attention: bool = False

    @property
    def time_dim(self) -> int:
        return self.channels[0] * 4

    def heads_at(self, channels: int) -> int:
        return self.heads if self.heads is not None else channels // (self.head_dim or 64)


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Shape of the KL autoencoder; levels differ by a factor of two in size."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    res_blocks: int = 2
    latent_channels: int = 4
    groups: int = 32
    scale_factor: float = 0.18215

    @property
    def downscale(self) -> int:
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Shape of a CLIP text encoder.

    `layout` is the checkpoint's key style; `skip` is the number of final layers that the model family never uses.
    """

    layout: str = "clip"  # "clip" (SD1.x, Hugging Face names) or "openclip" (SD2.x, resblocks names)
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 49408
    positions: int = 77
    activation: str = "quick_gelu"  # or "gelu"
    skip: int = 0
    pad_token: int = 49407


def default_groups(base_channels: int) -> int:
    """Returns the number of GroupNorm groups for `base_channels` at the first level: 32 for SD's 320 and 128."""
    return min(32, base_channels // 4)


def default_heads(model_channels: int) -> int:
    """Returns the number of attention heads of a UNet with SD1.x's layout: 8 at SD1.x's width."""
    return 8 if model_channels >= 256 else max(1, model_channels // 32)


SD15_UNET = UNetConfig()
SD21_UNET = UNetConfig(context_dim=1024, heads=None, head_dim=64, linear_projection=True, upcast_attention=True)
SD_VAE = VAEConfig()
CLIP_L = TextConfig()
OPENCLIP_H = TextConfig(
    layout="openclip", width=1024, layers=24, heads=16, mlp_width=4096, activation="gelu", skip=1, pad_token=0
)
