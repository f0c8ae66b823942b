"""Maps LoRA layer names to parameters of our networks, using tables generated from the model's configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from modules.loader.layouts.diffusers import unet_block_names
from modules.loader.layouts.key_maps import OPENCLIP_LAYER, UNET_RESNET
from modules.lora.weights import Slice
from modules.models.configs import TextConfig, UNetConfig

Part = Literal["unet", "text"]

# Prefixes of layer names in order of removal (dots have already become underscores).
PREFIXES = (
    *("base_model_model_", "lora_", "lycoris_", "model_diffusion_model_", "diffusion_model_"),
    "unet_",
)
# Prefixes of a text encoder's layers, by the mark that the tables below put before the layer's name: none for the
# only encoder of SD1.x and SD2.x and for CLIP-L of SDXL, "te2_" for SDXL's CLIP-G. The first match counts.
ENCODER_PREFIXES = {
    "te2_": (
        *("text_encoder_2_", "te2_", "clip_g_"),
        *("text_encoders_clip_g_transformer_", "text_encoders_clip_g_", "conditioner_embedders_1_model_"),
    ),
    "": (
        *("text_encoder_", "te_", "te1_", "clip_l_", "clip_"),
        *("text_encoders_clip_l_transformer_", "text_encoders_clip_l_", "conditioner_embedders_0_transformer_"),
        *("cond_stage_model_transformer_", "cond_stage_model_model_"),
    ),
}
_PACKED = ("q", "k", "v")


@dataclass(frozen=True)
class Target:
    """The parameter that a layer changes: `prefix` + "weight" or "bias", or a `slice` of this parameter."""

    part: Part
    prefix: str
    slice: Slice | None = None


Table = dict[str, Target]


def canonical(module: str) -> str:
    """Normalises all naming styles to one spelling with underscores only; a prefix remains only for CLIP-G's layers."""
    name = module.replace(".", "_").replace("_processor_", "_")
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    for mark, prefixes in ENCODER_PREFIXES.items():
        for prefix in prefixes:
            if name.startswith(prefix):
                return mark + name.removeprefix(prefix)
    return name


def name_table(unet: UNetConfig, texts: Iterable[TextConfig], unet_parameters: Iterable[str]) -> Table:
    """Maps canonical layer names to targets, for every layer of all networks in every naming style."""
    table = unet_table(unet, unet_parameters)
    for text in texts:
        table |= text_table(text)
    return table


def unet_table(config: UNetConfig, parameters: Iterable[str]) -> Table:
    """Maps LDM names (as in our UNet) and diffusers names."""
    blocks = {ldm: diffusers for diffusers, ldm in unet_block_names(config.attention_levels, config.res_blocks).items()}
    inside = {ldm: diffusers for diffusers, ldm in UNET_RESNET.items()}
    table: Table = {}
    for module in {name.rpartition(".")[0] for name in parameters}:
        target = Target("unet", f"{module}.")
        for name in (module, _diffusers_name(module, blocks, inside)):
            # Old attention processors call the output projection (index 0 of a list) just "to_out".
            spellings = {name, name.removesuffix(".0")} if name.endswith("to_out.0") else {name}
            table |= {canonical(spelling): target for spelling in spellings}
    return table


def _diffusers_name(module: str, blocks: dict[str, str], inside: dict[str, str]) -> str:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        block = blocks.get(".".join(parts[:length]))
        if block is not None:
            rest = ".".join(parts[length:])
            return f"{block}.{inside.get(rest, rest)}" if rest else block
    return module


def text_table(config: TextConfig) -> Table:
    """Maps Hugging Face names, which all trainers use for any checkpoint layout, and OpenCLIP's original names."""
    layers = _openclip_layers(config) if config.layout == "openclip" else _clip_layers(config)
    mark = "te2_" if config.name == "clip_g" else ""
    table: Table = {}
    for name, target in layers.items():
        # transformers 5 dropped the leading "text_model"; old attention processors have other projection names.
        spellings = {name, name.removeprefix("text_model.")}
        spellings |= {_processor_name(spelling) for spelling in spellings}
        table |= {mark + canonical(spelling): target for spelling in spellings}
    return table


def _processor_name(name: str) -> str:
    module, _, last = name.rpartition(".")
    return f"{module}.to_{last.removesuffix('_proj')}" if module.endswith("self_attn") else name


def _clip_layers(config: TextConfig) -> dict[str, Target]:
    pieces = (*OPENCLIP_LAYER, *(f"self_attn.{letter}_proj" for letter in _PACKED))
    names = [f"text_model.encoder.layers.{layer}.{piece}" for layer in range(config.layers) for piece in pieces]
    names += ["text_model.embeddings.token_embedding", "text_model.embeddings.position_embedding"]
    names += ["text_model.final_layer_norm"]
    return {name: Target("text", f"{config.name}.{name}.") for name in names}


def _openclip_layers(config: TextConfig) -> dict[str, Target]:
    width = config.width
    table = {
        "text_model.embeddings.token_embedding": Target("text", f"{config.name}.token_embedding."),
        "text_model.final_layer_norm": Target("text", f"{config.name}.ln_final."),
    }
    for layer in range(config.layers):
        theirs, ours = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for piece, own in OPENCLIP_LAYER.items():
            table[f"{theirs}.{piece}"] = table[f"{ours}.{own}"] = Target("text", f"{config.name}.{ours}.{own}.")
        packed = f"{config.name}.{ours}.attn.in_proj_"
        table[f"{ours}.attn.in_proj"] = Target("text", packed)
        for index, letter in enumerate(_PACKED):
            table[f"{theirs}.self_attn.{letter}_proj"] = Target("text", packed, (0, index * width, width))
    return table
