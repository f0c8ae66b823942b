"""Exports the XL demo as one file in SDXL's layout, with most of its weights in 8 bits."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tools.demo_model.training.eight_bits import in_eight_bits, is_table
from tools.demo_model.training.export import (
    CLIP_TABLE,
    DESCRIPTION,
    half_precision,
    position_ids,
    widen_table,
    write_checkpoint,
)
from tools.demo_model.training.networks import NATIVE_SIZE, VAE, Networks
from tools.demo_model.training.xl.networks import CLIP_G, CLIP_L, UNET, is_bulky

LIMIT_BYTES = 16 * 2**20
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    CLIP_L.name: "conditioner.embedders.0.transformer.",
    CLIP_G.name: "conditioner.embedders.1.model.",
}


def is_stored_in_eight_bits(name: str) -> bool:
    """Tells the tokens, the UNet's bulk and the VAE's encoder; its decoder would lose 2 dB."""
    unet, encoder = PREFIXES["unet"], f"{PREFIXES['vae']}encoder."
    in_unet = name.startswith(unet) and is_bulky(name.removeprefix(unet))
    return is_table(name) or in_unet or name.startswith(encoder)


def xl_weights(networks: Networks) -> dict[str, Tensor]:
    """Returns all weights by their names in the file, with the real vocabulary."""
    vocabulary = networks.captions.vocabulary
    encoders = {name: encoder.state_dict() for name, encoder in networks.text.named_children()}
    parts = {
        "unet": networks.unet.state_dict(),
        "vae": networks.vae.state_dict(),
        CLIP_L.name: widen_table(encoders[CLIP_L.name], CLIP_TABLE, vocabulary) | position_ids(CLIP_L),
        CLIP_G.name: widen_table(encoders[CLIP_G.name], "token_embedding.weight", vocabulary),
    }
    return in_eight_bits(half_precision(parts, PREFIXES), is_stored_in_eight_bits)


def xl_facts() -> dict[str, object]:
    return {
        "unet_head_dim": UNET.head_dim,
        "unet_groups": UNET.groups,
        "vae_groups": VAE.groups,
        "scale_factor": VAE.scale_factor,
        "clip_heads": CLIP_L.heads,
        "clip_g_heads": CLIP_G.heads,
        "native_size": NATIVE_SIZE,
        "prediction_type": "epsilon",
        "description": f"{DESCRIPTION} Reacts to the original size and the crop that it is told.",
    }


def export_xl(networks: Networks, path: Path) -> None:
    """Writes `path` atomically; refuses a file over the size limit or with values that are not finite."""
    write_checkpoint(xl_weights(networks), xl_facts(), path, LIMIT_BYTES)
