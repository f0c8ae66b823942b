"""Key names and shapes -> the configuration of every network, or an error that says what the file is instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.foreign import SUPPORTED, embedding_by_shape, foreign_kind
from modules.loader.key_maps import KIND_FOLDERS
from modules.loader.parts import Parts, has_linear_projection, split_parts
from modules.models.configs import OPENCLIP_H, TextConfig, UNetConfig, VAEConfig, default_groups, default_heads

Shapes = Mapping[str, tuple[int, ...]]

# SD2's v-prediction models differ from its epsilon models only in values; ComfyUI's mark is the spread of this bias.
_V_MARK = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_V_SPREAD = 0.09
_VARIANTS = {5: "a depth checkpoint", 7: "the x4 upscaler checkpoint", 8: "an InstructPix2Pix checkpoint"}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything about a checkpoint that is not a weight. `native_size` is the side in pixels it was trained for."""

    unet: UNetConfig
    vae: VAEConfig
    text: TextConfig
    family: str  # "SD1.x" or "SD2.x"
    prediction: str  # "epsilon" or "v"
    zero_terminal_snr: bool
    native_size: int
    inpaint: bool


def detect(
    state: Mapping[str, Tensor | tuple[int, ...]], metadata: Mapping[str, str], *, vae: VAEConfig | None = None
) -> ModelSpec:
    """Configuration of a checkpoint from its weights or only shapes; `vae` stands in for its own autoencoder."""
    tensors = {name: _as_tensor(value) for name, value in state.items()}
    refuse_foreign(tensors)
    return describe_parts(split_parts(tensors), tensors, metadata, vae=vae)


def describe_parts(
    parts: Parts, names: Iterable[str], metadata: Mapping[str, str], *, vae: VAEConfig | None = None
) -> ModelSpec:
    """The same for weights already split; `names` are the file's own, where marker keys are looked for."""
    _require_parts(parts, names, has_vae=vae is not None)
    facts = header_facts(metadata)
    unet = unet_config(parts.unet, facts)
    family = "SD2.x" if unet.linear_projection else "SD1.x"
    prediction = _prediction(parts.unet, set(names), metadata, facts, is_sd2=unet.linear_projection)
    default_size = 768 if unet.linear_projection and prediction == "v" else 512
    return ModelSpec(
        unet=unet,
        vae=vae or vae_config(parts.vae, facts),
        text=text_config(parts.text, facts),
        family=family,
        prediction=prediction,
        zero_terminal_snr="ztsnr" in set(names) or bool(facts.get("zero_terminal_snr")),
        native_size=_number(facts, "native_size", _number(facts, "image_size", default_size)),
        inpaint=unet.in_channels == 9,
    )


def _as_tensor(value: Tensor | tuple[int, ...]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.empty(value, device="meta")


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def refuse_foreign(state: Mapping[str, Tensor]) -> None:
    """Names files of other kinds instead of complaining about some key of theirs."""
    kind = foreign_kind(state)
    if kind is None and embedding_by_shape(shapes_of(state)):
        kind = "a textual inversion embedding"
    if kind is not None:
        place = f"; it belongs in {KIND_FOLDERS[kind]}" if kind in KIND_FOLDERS else ""
        raise ModelFileError(f"This file is {kind}, not a checkpoint we can run{place}. {SUPPORTED}.")


def _require_parts(parts: Parts, names: Iterable[str], *, has_vae: bool) -> None:
    if not parts.unet:
        first = next(iter(sorted(names)), "no weights at all")
        raise ModelFileError(f"This file is no Stable Diffusion checkpoint: it begins with {first}. {SUPPORTED}.")
    if not parts.text:
        raise ModelFileError("This checkpoint has no text encoder (cond_stage_model); use a complete checkpoint.")
    if not parts.vae and not has_vae:
        raise ModelFileError("This checkpoint has no VAE (first_stage_model); choose one with --vae.")


def header_facts(metadata: Mapping[str, str]) -> dict[str, object]:
    """Our own header text: what shapes cannot tell; it overrides the rules."""
    text = metadata.get("lightdiffusion") or metadata.get("sd_tiny")
    if not text:
        return {}
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f'The header text "lightdiffusion" of this file is damaged ({error}).') from error
    return facts if isinstance(facts, dict) else {}


def _number(facts: Mapping[str, object], name: str, default: int) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) and value > 0 else default


def unet_config(unet: Mapping[str, Tensor], facts: Mapping[str, object]) -> UNetConfig:
    """Reads the input blocks one by one: residual blocks give a level its width, downsampling ends it."""
    shapes = shapes_of(unet)
    stem = _shape(shapes, "input_blocks.0.0.weight", "UNet")
    _refuse_variant(shapes, stem[1])
    channels, attention, res_blocks = _levels(shapes)
    linear = has_linear_projection(unet)
    context = _shape(shapes, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", "UNet")[1]
    return UNetConfig(
        channels=channels,
        attention_levels=attention,
        res_blocks=res_blocks,
        in_channels=stem[1],
        out_channels=_shape(shapes, "out.2.weight", "UNet")[0],
        context_dim=context,
        heads=None if linear else _number(facts, "unet_heads", default_heads(stem[0])),
        head_dim=_number(facts, "unet_head_dim", min(64, stem[0])) if linear else None,
        groups=_number(facts, "unet_groups", default_groups(stem[0])),
        linear_projection=linear,
        upcast_attention=linear,
    )


def _refuse_variant(shapes: Shapes, in_channels: int) -> None:
    if in_channels not in (4, 9):
        kind = _VARIANTS.get(in_channels, f"a checkpoint with {in_channels} input channels")
        raise ModelFileError(f"This file is {kind}, which we cannot run. {SUPPORTED}.")
    if any(".transformer_blocks.1." in name for name in shapes):
        raise ModelFileError(f"This checkpoint has deeper transformers than SD1 or SD2 (as SDXL has). {SUPPORTED}.")


def _levels(shapes: Shapes) -> tuple[tuple[int, ...], tuple[bool, ...], int]:
    channels: list[int] = []
    attention: list[bool] = []
    blocks = 0
    index = 1
    new_level = True
    while f"input_blocks.{index}.0.in_layers.2.weight" in shapes or f"input_blocks.{index}.0.op.weight" in shapes:
        if f"input_blocks.{index}.0.op.weight" in shapes:
            new_level = True
        else:
            if new_level:
                channels.append(shapes[f"input_blocks.{index}.0.in_layers.2.weight"][0])
                attention.append(f"input_blocks.{index}.1.proj_in.weight" in shapes)
                new_level = False
            blocks += 1
        index += 1
    if not channels or blocks % len(channels):
        raise ModelFileError(
            f"The UNet's input blocks end at input_blocks.{index}, which fits no SD layout. {SUPPORTED}."
        )
    return tuple(channels), tuple(attention), blocks // len(channels)


def _shape(shapes: Shapes, name: str, network: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ModelFileError(f"The {network} lacks {name}; the file is incomplete or of another kind. {SUPPORTED}.")
    return shapes[name]


def vae_config(vae: Mapping[str, Tensor], facts: Mapping[str, object]) -> VAEConfig:
    """Widths from the encoder's levels; 32 GroupNorm groups at SD's width, fewer in proportion below."""
    shapes = shapes_of(vae)
    channels: list[int] = []
    while (name := f"encoder.down.{len(channels)}.block.0.conv1.weight") in shapes:
        channels.append(shapes[name][0])
    if not channels:
        _shape(shapes, "encoder.down.0.block.0.conv1.weight", "VAE")
    scale = facts.get("scale_factor")
    return VAEConfig(
        channels=tuple(channels),
        res_blocks=1 + _last_number(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        latent_channels=_shape(shapes, "post_quant_conv.weight", "VAE")[0],
        groups=_number(facts, "vae_groups", default_groups(channels[0])),
        scale_factor=scale if isinstance(scale, float) else VAEConfig().scale_factor,
    )


def text_config(text: Mapping[str, Tensor], facts: Mapping[str, object]) -> TextConfig:
    """CLIP (SD1.x) or OpenCLIP (SD2.x) by its key names."""
    shapes = shapes_of(text)
    return _openclip_config(shapes, facts) if "positional_embedding" in shapes else _clip_config(shapes, facts)


def _clip_config(shapes: Shapes, facts: Mapping[str, object]) -> TextConfig:
    vocabulary, width = _shape(shapes, "text_model.embeddings.token_embedding.weight", "text encoder")
    return TextConfig(
        width=width,
        layers=1 + _last_number(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        heads=_number(facts, "clip_heads", max(1, width // 64)),
        mlp_width=_shape(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", "text encoder")[0],
        vocab_size=vocabulary,
        positions=_shape(shapes, "text_model.embeddings.position_embedding.weight", "text encoder")[0],
        activation="gelu" if facts.get("clip_activation") == "gelu" else "quick_gelu",
    )


def _openclip_config(shapes: Shapes, facts: Mapping[str, object]) -> TextConfig:
    vocabulary, width = _shape(shapes, "token_embedding.weight", "text encoder")
    layers = 1 + _last_number(shapes, r"transformer\.resblocks\.(\d+)\.")
    return TextConfig(
        layout="openclip",
        width=width,
        layers=layers,
        heads=_number(facts, "clip_heads", max(1, width // 64)),
        mlp_width=_shape(shapes, "transformer.resblocks.0.mlp.c_fc.weight", "text encoder")[0],
        vocab_size=vocabulary,
        positions=_shape(shapes, "positional_embedding", "text encoder")[0],
        activation="quick_gelu" if facts.get("clip_activation") == "quick_gelu" else OPENCLIP_H.activation,
        # SD2 stops one layer early; diffusers saves the encoder without that layer, which leaves an odd number.
        skip=OPENCLIP_H.skip if layers % 2 == 0 else 0,
        pad_token=OPENCLIP_H.pad_token,
    )


def _last_number(names: Iterable[str], pattern: str) -> int:
    return max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)


def _prediction(
    unet: Mapping[str, Tensor],
    names: set[str],
    metadata: Mapping[str, str],
    facts: Mapping[str, object],
    *,
    is_sd2: bool,
) -> str:
    """Header text first, then marker keys, then ComfyUI's rule for SD2."""
    stated = str(facts.get("prediction_type") or metadata.get("modelspec.prediction_type") or "").lower()
    if stated in ("v", "v_prediction", "v-prediction"):
        return "v"
    if stated in ("epsilon", "eps"):
        return "epsilon"
    if stated:
        raise ModelFileError(f'This checkpoint predicts "{stated}"; only epsilon and v-prediction are supported.')
    if "v_pred" in names:
        return "v"
    mark = unet.get(_V_MARK)
    if not is_sd2 or mark is None or mark.is_meta or unet["input_blocks.0.0.weight"].shape[1] != 4:
        return "epsilon"
    return "v" if mark.float().std(correction=0).item() > _V_SPREAD else "epsilon"
