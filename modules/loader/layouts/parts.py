"""Splits a checkpoint's flat dict of any layout into UNet, VAE and text encoder with LDM names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from modules.loader.layouts.diffusers import (
    is_diffusers_unet,
    is_diffusers_vae,
    text_to_openclip,
    unet_to_ldm,
    vae_to_ldm,
)
from modules.loader.layouts.key_maps import (
    CLIP_PREFIX,
    DIFFUSERS_PARTS,
    EMA_PIECES,
    EMA_PREFIX,
    IGNORED_TEXT,
    IGNORED_VAE,
    LONE_UNET_PREFIX,
    OPENCLIP_PREFIX,
    UNET_PREFIX,
    UNET_ROOTS,
    VAE_PREFIX,
)
from modules.models.configs import SD15_UNET, SD21_UNET

_EMA_TOKEN = re.compile(rf"{'|'.join(EMA_PIECES)}|\d+")


@dataclass(frozen=True)
class Parts:
    """The weights of the three networks; empty for a network missing from the file.

    `linear_projection` is True for SD2, whose projections around transformer blocks are matrices, not convolutions.
    """

    unet: dict[str, Tensor]
    vae: dict[str, Tensor]
    text: dict[str, Tensor]
    linear_projection: bool


def split_parts(state: Mapping[str, Tensor]) -> Parts:
    """Finds each network under any known prefix and renames its weights to LDM names."""
    unet = strip_prefix(state, UNET_PREFIX) or _ema_unet(state) or strip_prefix(state, DIFFUSERS_PARTS["unet"])
    unet = unet or strip_prefix(state, LONE_UNET_PREFIX) or _bare_unet(state)
    vae = strip_prefix(state, VAE_PREFIX) or strip_prefix(state, DIFFUSERS_PARTS["vae"])
    unet = unet_to_ldm(unet) if is_diffusers_unet(unet) else unet
    linear = _has_linear_projection(unet, state)
    return Parts(unet, vae_part(vae), _text_part(state, is_sd2=linear), linear)


def _bare_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Finds a UNet saved without a prefix."""
    return {name: tensor for name, tensor in state.items() if name.startswith(UNET_ROOTS)}


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def vae_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the autoencoder's weights with LDM names."""
    state = vae_to_ldm(state) if is_diffusers_vae(state) else state
    return {name: tensor for name, tensor in state.items() if not name.startswith(IGNORED_VAE)}


def _has_linear_projection(unet: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Decides whether the projections are matrices.

    If possible, this is decided by the text encoder's width or layout, since some programs save matrices as 1x1
    convolutions or vice versa; otherwise it is decided by the shape.
    """
    reader = unet.get("middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    width = reader.shape[1] if reader is not None and reader.ndim >= 2 else 0
    for is_sd2, family, prefix in ((False, SD15_UNET, CLIP_PREFIX), (True, SD21_UNET, OPENCLIP_PREFIX)):
        if width == family.context_dim or any(name.startswith(prefix) for name in state):
            return is_sd2
    return any(name.endswith(".proj_in.weight") and tensor.ndim == 2 for name, tensor in unet.items())


def _text_part(state: Mapping[str, Tensor], *, is_sd2: bool) -> dict[str, Tensor]:
    openclip = strip_prefix(state, OPENCLIP_PREFIX)
    if not openclip:
        clip = strip_prefix(state, CLIP_PREFIX) or strip_prefix(state, DIFFUSERS_PARTS["text"])
        # Some programs leave out the "text_model." level.
        clip = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in clip.items()}
        clip = _without(clip, IGNORED_TEXT)
        return text_to_openclip(clip) if is_sd2 else clip
    return _without(openclip, IGNORED_TEXT)


def _without(state: Mapping[str, Tensor], ignored: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not any(piece in name for piece in ignored)}


def _ema_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {ema_to_ldm(name): tensor for name, tensor in strip_prefix(state, EMA_PREFIX).items()}


def ema_to_ldm(name: str) -> str:
    """Restores the dots: "input_blocks110in_layers0weight" -> "input_blocks.11.0.in_layers.0.weight"."""
    tokens = _EMA_TOKEN.findall(name)
    if "".join(tokens) != name:
        return name
    dotted: list[str] = []
    for previous, token in zip(["", *tokens], tokens, strict=False):
        if previous in ("input_blocks", "output_blocks") and len(token) > 1:
            dotted += [token[:-1], token[-1]]  # the last digit numbers the module inside the block
        else:
            dotted.append(token)
    return ".".join(dotted)
