"""Derives an autoencoder's configuration from its names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modules.loader.detection.facts import factor_of, number_of
from modules.loader.detection.shapes import check_divides, shape_of, shapes_of
from modules.loader.files.numbered import count_numbered
from modules.models.configs import VAEConfig, default_groups


def vae_config(
    vae: Mapping[str, Tensor], facts: Mapping[str, object], scale_factor: float = VAEConfig().scale_factor
) -> VAEConfig:
    """Derives widths from the encoder's levels; uses 32 GroupNorm groups at SD's width, fewer in proportion below.

    `scale_factor` is the family's, unless the facts state another.
    """
    shapes = shapes_of(vae)
    channels: list[int] = []
    while not channels or f"encoder.down.{len(channels)}.block.0.conv1.weight" in shapes:
        channels.append(shape_of(shapes, f"encoder.down.{len(channels)}.block.0.conv1.weight", "VAE", 4)[0])
    groups = number_of(facts, "vae_groups", default_groups(channels[0]))
    for width in channels:
        check_divides(width, groups, "groups", "VAE")
    return VAEConfig(
        channels=tuple(channels),
        res_blocks=count_numbered(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        latent_channels=shape_of(shapes, "post_quant_conv.weight", "VAE", 2)[0],
        groups=groups,
        scale_factor=factor_of(facts, "scale_factor", scale_factor),
    )
