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
    REFINER_CLIP_G_PREFIX,
    SDXL_CLIP_G_PREFIX,
    SDXL_CLIP_L_PREFIX,
    UNET_PREFIX,
    UNET_ROOTS,
    VAE_PREFIX,
)
from modules.models.configs import SD15_UNET, SD21_UNET, SDXL_UNET

VECTOR_MARK = "label_emb.0.0.weight"  # only SDXL's UNets read a vector beside the text
_RESIDUAL = re.compile(r"input_blocks\.([0-9]{1,4})\.0\.in_layers\.")
_EMA_TOKEN = re.compile(rf"{'|'.join(EMA_PIECES)}|\d+")


@dataclass(frozen=True)
class Parts:
    """The weights of the networks; empty for a network missing from the file.

    `texts`: each text encoder by name, in the order in which its family joins them: "clip_l" (SD1.x), "clip_h"
    (SD2.x), "clip_l" and "clip_g" (SDXL), or "clip_g" (the SDXL refiner).
    `linear_projection` is True for SD2 and SDXL, whose projections around transformer blocks are matrices, not
    convolutions.
    """

    unet: dict[str, Tensor]
    vae: dict[str, Tensor]
    texts: dict[str, dict[str, Tensor]]
    linear_projection: bool

    @property
    def has_texts(self) -> bool:
        return all(self.texts.values())


def split_parts(state: Mapping[str, Tensor]) -> Parts:
    """Finds each network under any known prefix and renames its weights to LDM names."""
    unet = strip_prefix(state, UNET_PREFIX) or _ema_unet(state) or strip_prefix(state, DIFFUSERS_PARTS["unet"])
    unet = unet or strip_prefix(state, LONE_UNET_PREFIX) or _bare_unet(state)
    vae = strip_prefix(state, VAE_PREFIX) or strip_prefix(state, DIFFUSERS_PARTS["vae"])
    unet = unet_to_ldm(unet) if is_diffusers_unet(unet) else unet
    linear = _has_linear_projection(unet, state)
    texts = _sdxl_texts(state, unet) if VECTOR_MARK in unet else _sd_texts(state, is_sd2=linear)
    return Parts(unet, vae_part(vae), texts, linear)


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
    if VECTOR_MARK in unet:
        return True
    reader = unet.get("middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    width = reader.shape[1] if reader is not None and reader.ndim >= 2 else 0
    for is_sd2, family, prefix in ((False, SD15_UNET, CLIP_PREFIX), (True, SD21_UNET, OPENCLIP_PREFIX)):
        if width == family.context_dim or any(name.startswith(prefix) for name in state):
            return is_sd2
    return any(name.endswith(".proj_in.weight") and tensor.ndim == 2 for name, tensor in unet.items())


def _sd_texts(state: Mapping[str, Tensor], *, is_sd2: bool) -> dict[str, dict[str, Tensor]]:
    openclip = strip_prefix(state, OPENCLIP_PREFIX)
    clip = {} if openclip else strip_prefix(state, CLIP_PREFIX) or strip_prefix(state, DIFFUSERS_PARTS["text"])
    if openclip or is_sd2:
        return {"clip_h": _without(_openclip(openclip, clip), (*IGNORED_TEXT, "text_projection"))}
    return {"clip_l": _clip(clip)}


def _sdxl_texts(state: Mapping[str, Tensor], unet: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Returns both encoders of SDXL, or the single one of the refiner, which reads CLIP-G's vectors alone."""
    openclip = strip_prefix(state, SDXL_CLIP_G_PREFIX) or strip_prefix(state, REFINER_CLIP_G_PREFIX)
    clip_g = _without(_openclip(openclip, strip_prefix(state, DIFFUSERS_PARTS["text_2"])), IGNORED_TEXT)
    if is_refiner(unet):
        return {"clip_g": clip_g}
    clip_l = strip_prefix(state, SDXL_CLIP_L_PREFIX) or strip_prefix(state, DIFFUSERS_PARTS["text"])
    return {"clip_l": _clip(clip_l), "clip_g": clip_g}


def is_refiner(unet: Mapping[str, Tensor]) -> bool:
    """Recognises the SDXL refiner: of SDXL's UNets, it alone has no attention at its last level."""
    blocks = [int(match[1]) for name in unet if (match := _RESIDUAL.match(name))]
    return VECTOR_MARK in unet and f"input_blocks.{max(blocks, default=0)}.1.proj_in.weight" not in unet


def lacks_vector(unet: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Tells whether the rest of the file is SDXL, while the UNet lacks the layers that read a vector."""
    if VECTOR_MARK in unet:
        return False
    reader = unet.get("middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    is_wide = reader is not None and reader.shape[1:2] == (SDXL_UNET.context_dim,)
    texts = (SDXL_CLIP_L_PREFIX, SDXL_CLIP_G_PREFIX, REFINER_CLIP_G_PREFIX, DIFFUSERS_PARTS["text_2"])
    has_texts = any(name.startswith(texts) for name in state)
    return is_wide or has_texts or any(name.startswith("label_emb.") for name in unet)


def _clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a Hugging Face CLIP with the level "text_model.", which some programs leave out."""
    state = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}
    return _without(state, (*IGNORED_TEXT, "text_projection"))


def _openclip(openclip: dict[str, Tensor], clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns an OpenCLIP under its own names, whichever of the two layouts it is saved in."""
    return openclip or text_to_openclip(clip)


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
        if previous in ("input_blocks", "output_blocks", "label_emb") and len(token) > 1:
            dotted += [token[:-1], token[-1]]  # the last digit numbers the module inside the block
        else:
            dotted.append(token)
    return ".".join(dotted)
