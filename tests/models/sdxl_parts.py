"""diffusers' and transformers' networks with the weights of a tiny SDXL checkpoint, converted by diffusers."""

from __future__ import annotations

from diffusers.loaders import single_file_utils as convert
from torch import Tensor, nn

from tests import tiny
from tests.models.oracles import diffusers_unet, diffusers_vae, transformers_text

CLIP_L, CLIP_G = tiny.SDXL_TEXTS
CLIP_L_PREFIX, CLIP_G_PREFIX = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


def sdxl_parts(state: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Returns the networks by the names of their folders."""
    unet, vae = diffusers_unet(tiny.SDXL_UNET, pooled=CLIP_G.projection or 0), diffusers_vae(tiny.VAE)
    vae.register_to_config(scaling_factor=0.13025)
    unet.load_state_dict(convert.convert_ldm_unet_checkpoint(dict(state), unet.config))
    vae.load_state_dict(convert.convert_ldm_vae_checkpoint(dict(state), vae.config))
    text, text_2 = transformers_text(CLIP_L), transformers_text(CLIP_G)
    clip_l = {name.removeprefix(CLIP_L_PREFIX): t for name, t in state.items() if name.startswith(CLIP_L_PREFIX)}
    _fill(text, clip_l)
    _fill(text_2, convert.convert_open_clip_checkpoint(text_2, dict(state), prefix=CLIP_G_PREFIX))
    return {"unet": unet, "vae": vae, "text_encoder": text, "text_encoder_2": text_2}


def _fill(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads the weights, with or without the level "text_model." in their names, as this transformers has it."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items() if "position_ids" not in name}
    encoder.load_state_dict({name: bare[name.removeprefix("text_model.")] for name in encoder.state_dict()})
