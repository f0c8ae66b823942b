"""Configurations of the SD1.x, SD2.x and SDXL networks, as frozen dataclasses.

Values that cannot be derived from shapes (heads, groups) follow rules that give SD1.x's constants at SD1.x's widths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a latent-diffusion UNet: two (`res_blocks`) residual blocks at each of `len(channels)` levels.

    SD1.x fixes the number of attention heads at every level (`heads`); SD2.x and SDXL fix the width of a head
    (`head_dim`). `depths`: how many transformer blocks follow each residual block of a level. `up_depths`: the same for
    the decoder of distilled models (SSD-1B, Vega), level by level, in the order in which its blocks run; empty means
    as in `depths`. `middle_depth` None means a middle of one residual block without attention.
    `vector_dim`: width of the vector that SDXL adds to the time embedding (pooled text and picture sizes).
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    up_depths: tuple[tuple[int, ...], ...] = ()
    middle_depth: int | None = 1
    res_blocks: int = 2
    in_channels: int = 4
    out_channels: int = 4
    context_dim: int = 768
    vector_dim: int | None = None
    heads: int | None = 8
    head_dim: int | None = None
    groups: int = 32
    linear_projection: bool = False
    upcast_attention: bool = False

    @property
    def time_dim(self) -> int:
        return self.channels[0] * 4

    @property
    def attention_levels(self) -> tuple[bool, ...]:
        return tuple(depth > 0 for depth in self.depths)

    def decoder_depths(self, level: int) -> tuple[int, ...]:
        """Returns the transformer depths of the decoder's blocks at this level, in the order in which they run."""
        return self.up_depths[level] if self.up_depths else (self.depths[level],) * (self.res_blocks + 1)

    def heads_at(self, channels: int) -> int:
        return self.heads if self.heads is not None else channels // (self.head_dim or 64)


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Shape of the KL autoencoder; levels differ by a factor of two in size.

    The UNet reads latents times `scale_factor`. Playground 2.5 first subtracts `latent_mean` and divides by
    `latent_std` (one number for each channel); without these, they are 0 and 1.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    res_blocks: int = 2
    latent_channels: int = 4
    groups: int = 32
    scale_factor: float = 0.18215
    latent_mean: tuple[float, ...] = ()
    latent_std: tuple[float, ...] = ()

    @property
    def downscale(self) -> int:
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Shape of a CLIP text encoder.

    `name` is the encoder's name in its model: "clip_l" (SD1.x, SDXL), "clip_h" (SD2.x) or "clip_g" (SDXL).
    `layout` is the checkpoint's key style; `skip` is the number of final layers that the model family never uses.
    `final_norm`: whether the family normalises the hidden states that its UNet reads.
    `projection`: width of the pooled output; None if the family uses none.
    """

    name: str = "clip_l"
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
    final_norm: bool = True
    projection: int | None = None


def default_groups(base_channels: int) -> int:
    """Returns the number of GroupNorm groups for `base_channels` at the first level: 32 for SD's 320 and 128."""
    return min(32, base_channels // 4)


def default_heads(model_channels: int) -> int:
    """Returns the number of attention heads of a UNet with SD1.x's layout: 8 at SD1.x's width."""
    return 8 if model_channels >= 256 else max(1, model_channels // 32)


SD15_UNET = UNetConfig()
SD21_UNET = UNetConfig(context_dim=1024, heads=None, head_dim=64, linear_projection=True, upcast_attention=True)
SDXL_UNET = UNetConfig(
    channels=(320, 640, 1280),
    depths=(0, 2, 10),
    middle_depth=10,
    context_dim=2048,
    vector_dim=2816,
    heads=None,
    head_dim=64,
    linear_projection=True,
)
SSD_1B_UNET = replace(SDXL_UNET, depths=(0, 2, 4), up_depths=((0, 0, 0), (2, 1, 1), (4, 4, 10)), middle_depth=None)
VEGA_UNET = replace(SDXL_UNET, depths=(0, 1, 2), middle_depth=None)
SDXL_REFINER_UNET = replace(
    SDXL_UNET, channels=(384, 768, 1536, 1536), depths=(0, 4, 4, 0), middle_depth=4, context_dim=1280, vector_dim=2560
)
SD_VAE = VAEConfig()
SDXL_VAE = VAEConfig(scale_factor=0.13025)
CLIP_L = TextConfig()
OPENCLIP_H = TextConfig(
    name="clip_h",
    layout="openclip",
    width=1024,
    layers=24,
    heads=16,
    mlp_width=4096,
    activation="gelu",
    skip=1,
    pad_token=0,
)
SDXL_CLIP_L = replace(CLIP_L, skip=1, final_norm=False)
SDXL_CLIP_G = TextConfig(
    name="clip_g",
    layout="openclip",
    width=1280,
    layers=32,
    heads=20,
    mlp_width=5120,
    activation="gelu",
    skip=1,
    pad_token=0,
    final_norm=False,
    projection=1280,
)
