"""Derives an autoencoder's configuration from its names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.facts import factor_of, factors_of, number_of
from modules.loader.detection.prediction import PLAYGROUND_MARKS, has_playground_marks, numbers_in
from modules.loader.detection.shapes import check_divides, shape_of, shapes_of
from modules.loader.files.numbered import count_numbered
from modules.models.configs import VAEConfig, default_groups

_PLAYGROUND_SCALE = 0.5


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


def with_latent_statistics(config: VAEConfig, state: Mapping[str, Tensor], facts: Mapping[str, object]) -> VAEConfig:
    """Adds the statistics of the latents that the UNet was trained on, if the checkpoint has them (Playground 2.5).

    They hold for any autoencoder, as does the scale factor that belongs to them. Raises ModelFileError.
    """
    mean, std = factors_of(facts, "latent_mean"), factors_of(facts, "latent_std")
    if not mean and not std and has_playground_marks(state):
        mean, std = (numbers_in(state, mark, config.latent_channels) for mark in PLAYGROUND_MARKS)
    if not mean and not std:
        return config
    if not len(mean) == len(std) == config.latent_channels or min(std) <= 0:
        raise ModelFileError(
            f"The mean and standard deviation of this checkpoint's latents cannot be used: {config.latent_channels} "
            "numbers each are needed, and the deviations must be above 0."
        )
    factor = factor_of(facts, "scale_factor", _PLAYGROUND_SCALE)
    return replace(config, latent_mean=mean, latent_std=std, scale_factor=factor)
