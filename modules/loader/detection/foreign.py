"""Says what a model file is when it is not an SD1.x or SD2.x checkpoint, by the names in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modules.loader.layouts.key_maps import (
    DIFFUSERS_PARTS,
    EMA_PREFIX,
    FOREIGN_KINDS,
    LONE_UNET_PREFIX,
    TEXT_PREFIXES,
    UNET_PREFIX,
)

LONE_UNET = "a UNet without text encoder and VAE"
SUPPORTED = "Supported are SD1.x and SD2.x checkpoints, among them 768-v and inpainting models"


def foreign_kind(names: Iterable[str]) -> str | None:
    """The kind of file in words ("a LoRA", "an SDXL checkpoint"), or None when nothing foreign is recognised."""
    names = list(names)
    text = "\n" + "\n".join(names)  # one search a mark, not one a mark and name: this runs at every start
    for kind, marks in FOREIGN_KINDS:
        if any(mark.replace("^", "\n") in text for mark in marks):
            return kind
    return _lone_part(names)


def _lone_part(names: list[str]) -> str | None:
    """A single network saved by itself, or a file that is just one embedding."""
    whole = (UNET_PREFIX, EMA_PREFIX, DIFFUSERS_PARTS["unet"])
    found = {name.removeprefix(LONE_UNET_PREFIX) for name in names}
    if {"input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight"} & found:
        return LONE_UNET
    if any(name.startswith(whole) for name in names):
        return None
    if any(name.removeprefix("first_stage_model.").startswith("decoder.") for name in names):
        return "a VAE"
    texts = (*TEXT_PREFIXES, "text_model.", "transformer.resblocks.", "transformer.text_model.")
    if any(name.startswith(texts) for name in names) or "embeddings.token_embedding.weight" in found:
        return "a text encoder"
    return None


def embedding_by_shape(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Concept-library embeddings hold one small tensor under the token's own name."""
    return len(shapes) == 1 and all(len(shape) <= 2 and shape[-1:] in ((768,), (1024,)) for shape in shapes.values())
