"""Recognises files other than checkpoints of our families by their tensor names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modules.loader.layouts.key_maps import (
    DIFFUSERS_PARTS,
    EMA_PREFIX,
    LONE_UNET_PREFIX,
    TEXT_PREFIXES,
    UNET_PREFIX,
)

LONE_UNET = "a UNet without text encoder and VAE"
SUPPORTED = "SD1.x, SD2.x and SDXL checkpoints are supported, including 768-v and inpainting models"

# Folders where other kinds of files belong.
KIND_FOLDERS = {
    "a LoRA": "models/loras",
    "a LoRA (LyCORIS)": "models/loras",
    "a ControlNet": "models/controlnet",
    "a T2I-Adapter": "models/controlnet",
    "a VAE": "models/vae",
    "a text encoder": "models/text_encoders",
    "a textual inversion embedding": "models/embeddings",
    "an upscaler": "models/upscalers",
}

# Kinds of files by parts of their tensor names; the first match counts. "^" means that the name starts with the part.
FOREIGN_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "a LoRA",
        (
            "^lora_unet_",
            "^lora_te",
            ".lora_down.",
            ".lora_up.",
            ".lora_A.",
            ".lora_B.",
            "_lora.up.",
            "lora_linear_layer.",
            ".lora.up.",
        ),
    ),
    ("a LoRA (LyCORIS)", (".hada_w1_a", ".lokr_w1", ".oft_blocks", ".oft_diag", "^lycoris_")),
    ("a ControlNet", ("^control_model.", "controlnet_cond_embedding.", "^input_hint_block.", "^lora_controlnet")),
    ("a T2I-Adapter", ("^adapter.body.", "^body.0.resnets.", "^body.0.block1.")),
    ("an IP-Adapter", ("^ip_adapter.", "^image_proj.")),
    ("an AnimateDiff motion module", (".motion_modules.", "^motion_modules.")),
    ("a Stable Video Diffusion checkpoint", (".time_stack.",)),
    ("an SD3 checkpoint", ("joint_blocks.", "^transformer_blocks.0.norm1_context.")),
    ("a Flux checkpoint", ("double_blocks.", "^single_transformer_blocks.")),
    ("a Stable Cascade checkpoint", ("clip_txt_mapper.",)),
    ("an unCLIP checkpoint", ("^embedder.model.visual.", "^noise_augmentor.")),
    ("a depth checkpoint", ("^depth_model.",)),
    ("the x4 upscaler checkpoint", ("^low_scale_model.",)),
    ("a textual inversion embedding", ("^emb_params", "^string_to_param", "^clip_l", "^clip_g")),
    (
        "an upscaler",
        (".rdb1.", ".RDB1.", "^conv_first.", "^params_ema.", "^params.", "^upsampler.", "^layers.0.residual_group."),
    ),
)


def foreign_kind(names: Iterable[str]) -> str | None:
    """Returns the kind of file ("a LoRA", "an SDXL checkpoint"), or None if nothing foreign is recognised."""
    names = list(names)
    text = "\n" + "\n".join(names)  # one search per mark, not per mark and name, since this runs on every load
    for kind, marks in FOREIGN_KINDS:
        if any(mark.replace("^", "\n") in text for mark in marks):
            return kind
    return _lone_part(names)


def _lone_part(names: list[str]) -> str | None:
    """Recognises a single network saved separately, or a file with just one embedding."""
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
    """Recognises concept-library embeddings, which are one small tensor named after its token."""
    return len(shapes) == 1 and all(len(shape) <= 2 and shape[-1:] in ((768,), (1024,)) for shape in shapes.values())
