"""Derives a UNet's configuration from its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.facts import number_of
from modules.loader.detection.foreign import SUPPORTED
from modules.loader.detection.shapes import Shapes, check_divides, shape_of, shapes_of
from modules.loader.files.numbered import count_numbered
from modules.loader.layouts.parts import VECTOR_MARK
from modules.models.configs import UNetConfig, default_groups, default_heads

_CONTEXT_READER = ".transformer_blocks.0.attn2.to_k.weight"
_VARIANTS = {5: "a depth checkpoint", 7: "the x4 upscaler checkpoint", 8: "an InstructPix2Pix checkpoint"}


def unet_config(unet: Mapping[str, Tensor], facts: Mapping[str, object], *, linear: bool) -> UNetConfig:
    """Reads the input blocks one by one: residual blocks determine a level's width, and downsampling ends the level.

    `linear`: the projections around the transformer blocks are matrices (SD2.x, SDXL), not 1x1 convolutions.
    """
    shapes = shapes_of(unet)
    stem = shape_of(shapes, "input_blocks.0.0.weight", "UNet", 4)
    _refuse_variant(shapes, stem[1])
    channels, depths, res_blocks = _levels(shapes)
    middle = transformer_depth(shapes, "middle_block.1") or None
    readers = (name for name in sorted(shapes) if name.endswith(_CONTEXT_READER))
    reader = next(readers, f"middle_block.1{_CONTEXT_READER}")
    vector = shape_of(shapes, VECTOR_MARK, "UNet", 2)[1] if VECTOR_MARK in shapes else None
    config = UNetConfig(
        channels=channels,
        depths=depths,
        up_depths=_up_depths(shapes, depths, res_blocks),
        middle_depth=middle,
        res_blocks=res_blocks,
        in_channels=stem[1],
        out_channels=shape_of(shapes, "out.2.weight", "UNet", 4)[0],
        context_dim=shape_of(shapes, reader, "UNet", 2)[1],
        vector_dim=vector,
        heads=None if linear else number_of(facts, "unet_heads", default_heads(stem[0])),
        head_dim=number_of(facts, "unet_head_dim", min(64, stem[0])) if linear else None,
        groups=number_of(facts, "unet_groups", default_groups(stem[0])),
        linear_projection=linear,
        upcast_attention=linear and vector is None,
    )
    check_unet(config)
    return config


def transformer_depth(shapes: Shapes, block: str) -> int:
    """Returns the number of transformer blocks in one block of the UNet."""
    return count_numbered(shapes, re.escape(block) + r"\.transformer_blocks\.(\d+)\.")


def _up_depths(shapes: Shapes, depths: tuple[int, ...], res_blocks: int) -> tuple[tuple[int, ...], ...]:
    """Returns the depths of the decoder's blocks, level by level, if they differ from the encoder's."""
    blocks = res_blocks + 1
    last = len(depths) - 1
    found = tuple(
        tuple(
            transformer_depth(shapes, f"output_blocks.{(last - level) * blocks + block}.1") for block in range(blocks)
        )
        for level in range(len(depths))
    )
    return () if found == tuple((depth,) * blocks for depth in depths) else found


def check_unet(config: UNetConfig) -> None:
    """Raises ModelFileError if the channels are not divisible by groups or heads, which a header may set freely."""
    for level, channels in enumerate(config.channels):
        check_divides(channels, config.groups, "groups", "UNet")
        if config.attention_levels[level]:
            check_divides(channels, config.heads or config.head_dim or 64, "heads", "UNet")
    check_divides(config.channels[-1], config.heads or config.head_dim or 64, "heads", "UNet")


def _refuse_variant(shapes: Shapes, in_channels: int) -> None:
    if in_channels not in (4, 9):
        kind = _VARIANTS.get(in_channels, f"a checkpoint with {in_channels} input channels")
        raise ModelFileError(f"This file is {kind}, which we cannot run. {SUPPORTED}.")


def _levels(shapes: Shapes) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Returns the channels and transformer depth of each level, and the number of residual blocks in each."""
    channels: list[int] = []
    depths: list[int] = []
    blocks = 0
    index = 1
    new_level = True
    while f"input_blocks.{index}.0.in_layers.2.weight" in shapes or f"input_blocks.{index}.0.op.weight" in shapes:
        if f"input_blocks.{index}.0.op.weight" in shapes:
            new_level = True
        else:
            if new_level:
                channels.append(shape_of(shapes, f"input_blocks.{index}.0.in_layers.2.weight", "UNet", 4)[0])
                depths.append(transformer_depth(shapes, f"input_blocks.{index}.1"))
                new_level = False
            blocks += 1
        index += 1
    if not channels or blocks % len(channels):
        raise ModelFileError(
            f"The UNet's input blocks end at input_blocks.{index}, which fits no SD layout. {SUPPORTED}."
        )
    return tuple(channels), tuple(depths), blocks // len(channels)
