"""Derives every network's configuration from key names and shapes, or raises an error that says what the file is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.detection.facts import TEXT_FACTS, factor_of, header_facts, number_of
from modules.loader.detection.foreign import KIND_FOLDERS, LONE_UNET, SUPPORTED, embedding_by_shape, foreign_kind
from modules.loader.files.numbered import count_numbered
from modules.loader.layouts.parts import Parts
from modules.models.configs import OPENCLIP_H, TextConfig, UNetConfig, VAEConfig, default_groups, default_heads

Shapes = Mapping[str, tuple[int, ...]]

# SD2's v-prediction and epsilon models differ only in their values. ComfyUI tells them apart by this bias's spread.
_V_MARK = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_V_SPREAD = 0.09
_VARIANTS = {5: "a depth checkpoint", 7: "the x4 upscaler checkpoint", 8: "an InstructPix2Pix checkpoint"}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything about a checkpoint except its weights. `native_size` is the training resolution (side in pixels)."""

    unet: UNetConfig
    vae: VAEConfig
    text: TextConfig
    family: str  # "SD1.x" or "SD2.x"
    prediction: str  # "epsilon" or "v"
    zero_terminal_snr: bool
    native_size: int
    inpaint: bool


def describe_parts(
    parts: Parts,
    names: Iterable[str],
    metadata: Mapping[str, str],
    *,
    vae: VAEConfig | None = None,
    text_metadata: Mapping[str, str] | None = None,
) -> ModelSpec:
    """Derives a checkpoint's configuration from its parts; marker keys are looked up in `names`, the original names.

    `vae` replaces the checkpoint's autoencoder.
    `text_metadata` is the header of the text encoder's file, if it has a separate file.
    """
    _require_parts(parts, names, has_vae=vae is not None)
    facts = header_facts(metadata)
    text_facts = facts | {name: fact for name, fact in header_facts(text_metadata or {}).items() if name in TEXT_FACTS}
    unet = unet_config(parts.unet, facts, linear=parts.linear_projection)
    text = text_config(parts.text, text_facts)
    if text.width != unet.context_dim:
        raise ModelFileError(
            f"The text encoder gives vectors of width {text.width}, but this UNet reads {unet.context_dim}; "
            "choose a matching one with --text-encoder."
        )
    family = "SD2.x" if unet.linear_projection else "SD1.x"
    prediction = _prediction(parts.unet, set(names), metadata, facts, is_sd2=unet.linear_projection)
    default_size = 768 if unet.linear_projection and prediction == "v" else 512
    return ModelSpec(
        unet=unet,
        vae=vae or vae_config(parts.vae, facts),
        text=text,
        family=family,
        prediction=prediction,
        zero_terminal_snr="ztsnr" in set(names) or bool(facts.get("zero_terminal_snr")),
        native_size=number_of(facts, "native_size", number_of(facts, "image_size", default_size)),
        inpaint=unet.in_channels == 9,
    )


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def refuse_foreign(state: Mapping[str, Tensor]) -> None:
    """Raises an error that identifies a file of another kind, instead of an error about a missing key."""
    kind = foreign_kind(state)
    if kind == LONE_UNET:  # valid with parts from other files; a missing part is reported later
        return
    if kind is None and embedding_by_shape(shapes_of(state)):
        kind = "a textual inversion embedding"
    if kind is not None:
        place = f"; it belongs in {KIND_FOLDERS[kind]}" if kind in KIND_FOLDERS else ""
        raise ModelFileError(f"This file is {kind}, not a checkpoint we can run{place}. {SUPPORTED}.")


def _require_parts(parts: Parts, names: Iterable[str], *, has_vae: bool) -> None:
    if not parts.unet:
        first = next(iter(sorted(names)), None)
        begins = f"it begins with {quoted(first)}" if first is not None else "it holds no weights at all"
        raise ModelFileError(f"This file is not a Stable Diffusion checkpoint: {begins}. {SUPPORTED}.")
    has_vae = has_vae or bool(parts.vae)
    if parts.text and has_vae:
        return
    lone = "" if parts.text or parts.vae else "is a UNet alone: it "
    lacking = " and no ".join(
        part for part, there in (("text encoder", bool(parts.text)), ("VAE", has_vae)) if not there
    )
    text = "" if parts.text else "--text-encoder NAME (files in models/text_encoders, or another checkpoint)"
    vae = "" if has_vae else "--vae NAME (files in models/vae)"
    raise ModelFileError(
        f"This file {lone}has no {lacking}. Add the missing parts with {' and '.join(filter(None, (vae, text)))}; "
        'on the page under "LoRA and VAE".'
    )


def unet_config(unet: Mapping[str, Tensor], facts: Mapping[str, object], *, linear: bool) -> UNetConfig:
    """Reads the input blocks one by one: residual blocks determine a level's width, and downsampling ends the level.

    `linear`: the projections around the transformer blocks are matrices (SD2.x), not 1x1 convolutions.
    """
    shapes = shapes_of(unet)
    stem = _shape(shapes, "input_blocks.0.0.weight", "UNet", 4)
    _refuse_variant(shapes, stem[1])
    channels, attention, res_blocks = _levels(shapes)
    context = _shape(shapes, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", "UNet", 2)[1]
    config = UNetConfig(
        channels=channels,
        attention_levels=attention,
        res_blocks=res_blocks,
        in_channels=stem[1],
        out_channels=_shape(shapes, "out.2.weight", "UNet", 4)[0],
        context_dim=context,
        heads=None if linear else number_of(facts, "unet_heads", default_heads(stem[0])),
        head_dim=number_of(facts, "unet_head_dim", min(64, stem[0])) if linear else None,
        groups=number_of(facts, "unet_groups", default_groups(stem[0])),
        linear_projection=linear,
        upcast_attention=linear,
    )
    check_unet(config)
    return config


def check_unet(config: UNetConfig) -> None:
    """Raises ModelFileError if the channels are not divisible by groups or heads, which a header may set freely."""
    for level, channels in enumerate(config.channels):
        _divides(channels, config.groups, "groups", "UNet")
        if config.attention_levels[level]:
            _divides(channels, config.heads or config.head_dim or 64, "heads", "UNet")
    _divides(config.channels[-1], config.heads or config.head_dim or 64, "heads", "UNet")


def _divides(channels: int, parts: int, what: str, network: str) -> None:
    if parts < 1 or channels % parts:
        raise ModelFileError(
            f"The {network}'s {channels} channels cannot be divided into {what} of {parts}; "
            f"this network is unknown. {SUPPORTED}."
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
                channels.append(_shape(shapes, f"input_blocks.{index}.0.in_layers.2.weight", "UNet", 4)[0])
                attention.append(f"input_blocks.{index}.1.proj_in.weight" in shapes)
                new_level = False
            blocks += 1
        index += 1
    if not channels or blocks % len(channels):
        raise ModelFileError(
            f"The UNet's input blocks end at input_blocks.{index}, which fits no SD layout. {SUPPORTED}."
        )
    return tuple(channels), tuple(attention), blocks // len(channels)


def _shape(shapes: Shapes, name: str, network: str, rank: int) -> tuple[int, ...]:
    """Returns the shape of a required weight, which must have at least `rank` dimensions, none of size 0."""
    if name not in shapes:
        raise ModelFileError(f"The {network} lacks {name}; the file is incomplete or of another kind. {SUPPORTED}.")
    shape = shapes[name]
    if len(shape) < rank or 0 in shape:
        raise ModelFileError(
            f"{name} of the {network} has shape {list(shape)}, which fits none of our networks. {SUPPORTED}."
        )
    return shape


def vae_config(vae: Mapping[str, Tensor], facts: Mapping[str, object]) -> VAEConfig:
    """Derives widths from the encoder's levels; uses 32 GroupNorm groups at SD's width, fewer in proportion below."""
    shapes = shapes_of(vae)
    channels: list[int] = []
    while not channels or f"encoder.down.{len(channels)}.block.0.conv1.weight" in shapes:
        channels.append(_shape(shapes, f"encoder.down.{len(channels)}.block.0.conv1.weight", "VAE", 4)[0])
    groups = number_of(facts, "vae_groups", default_groups(channels[0]))
    for width in channels:
        _divides(width, groups, "groups", "VAE")
    return VAEConfig(
        channels=tuple(channels),
        res_blocks=count_numbered(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        latent_channels=_shape(shapes, "post_quant_conv.weight", "VAE", 2)[0],
        groups=groups,
        scale_factor=factor_of(facts, "scale_factor", VAEConfig().scale_factor),
    )


def text_config(text: Mapping[str, Tensor], facts: Mapping[str, object]) -> TextConfig:
    """Recognises CLIP (SD1.x) or OpenCLIP (SD2.x) by key names."""
    shapes = shapes_of(text)
    config = _openclip_config(shapes, facts) if "positional_embedding" in shapes else _clip_config(shapes, facts)
    _divides(config.width, config.heads, "heads", "text encoder")
    return config


def _clip_config(shapes: Shapes, facts: Mapping[str, object]) -> TextConfig:
    vocabulary, width = _shape(shapes, "text_model.embeddings.token_embedding.weight", "text encoder", 2)[:2]
    return TextConfig(
        width=width,
        layers=count_numbered(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        heads=number_of(facts, "clip_heads", max(1, width // 64)),
        mlp_width=_shape(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", "text encoder", 2)[0],
        vocab_size=vocabulary,
        positions=_shape(shapes, "text_model.embeddings.position_embedding.weight", "text encoder", 2)[0],
        activation="gelu" if facts.get("clip_activation") == "gelu" else "quick_gelu",
    )


def _openclip_config(shapes: Shapes, facts: Mapping[str, object]) -> TextConfig:
    vocabulary, width = _shape(shapes, "token_embedding.weight", "text encoder", 2)[:2]
    layers = count_numbered(shapes, r"transformer\.resblocks\.(\d+)\.")
    return TextConfig(
        layout="openclip",
        width=width,
        layers=layers,
        heads=number_of(facts, "clip_heads", max(1, width // 64)),
        mlp_width=_shape(shapes, "transformer.resblocks.0.mlp.c_fc.weight", "text encoder", 2)[0],
        vocab_size=vocabulary,
        positions=_shape(shapes, "positional_embedding", "text encoder", 2)[0],
        activation="quick_gelu" if facts.get("clip_activation") == "quick_gelu" else OPENCLIP_H.activation,
        # SD2 skips the last layer. diffusers saves the encoder without this layer, so the number of layers is odd.
        skip=OPENCLIP_H.skip if layers % 2 == 0 else 0,
        pad_token=OPENCLIP_H.pad_token,
    )


def _prediction(
    unet: Mapping[str, Tensor],
    names: set[str],
    metadata: Mapping[str, str],
    facts: Mapping[str, object],
    *,
    is_sd2: bool,
) -> str:
    """Determines the prediction type by the header text, then by marker keys, then by ComfyUI's rule for SD2."""
    stated = str(facts.get("prediction_type") or metadata.get("modelspec.prediction_type") or "").lower()
    if stated in ("v", "v_prediction", "v-prediction"):
        return "v"
    if stated in ("epsilon", "eps"):
        return "epsilon"
    if stated:
        raise ModelFileError(f"This checkpoint predicts {quoted(stated)}; only epsilon and v-prediction are supported.")
    if "v_pred" in names:
        return "v"
    mark = unet.get(_V_MARK)
    if not is_sd2 or mark is None or mark.is_meta or unet["input_blocks.0.0.weight"].shape[1] != 4:
        return "epsilon"
    return "v" if mark.float().std(correction=0).item() > _V_SPREAD else "epsilon"
