"""Derives a text encoder's configuration from its names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.facts import number_of
from modules.loader.detection.shapes import Shapes, check_divides, shape_of, shapes_of
from modules.loader.files.numbered import count_numbered
from modules.models.configs import OPENCLIP_H, TextConfig

_FEWEST_POSITIONS = 3  # the begin mark, one token, the end mark


def text_configs(
    texts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, object], *, is_sdxl: bool
) -> tuple[TextConfig, ...]:
    """Derives the configuration of each encoder of a model: CLIP or OpenCLIP, by key names."""
    configs = tuple(_text_config(name, state, facts, is_sdxl=is_sdxl) for name, state in texts.items())
    if len({config.positions for config in configs}) > 1:
        lengths = " and ".join(str(config.positions) for config in configs)
        raise ModelFileError(
            f"The text encoders read texts of {lengths} tokens, so their outputs cannot be joined; "
            "choose encoders of the same length with --text-encoder."
        )
    return configs


def _check_length(config: TextConfig) -> None:
    """Raises ModelFileError if the encoder has no place for a token between the begin mark and the end mark."""
    if config.positions < _FEWEST_POSITIONS:
        raise ModelFileError(
            f"The text encoder has {config.positions} positions where at least {_FEWEST_POSITIONS} are needed; "
            "the file is incomplete or of another kind."
        )


def _text_config(name: str, state: Mapping[str, Tensor], facts: Mapping[str, object], *, is_sdxl: bool) -> TextConfig:
    shapes = shapes_of(state)
    facts = _own_facts(name, facts)
    config = _openclip_config(shapes, facts) if "positional_embedding" in shapes else _clip_config(shapes, facts)
    config = replace(config, name=name)
    check_divides(config.width, config.heads, "heads", "text encoder")
    _check_length(config)
    if not is_sdxl:
        return config
    projection = shape_of(shapes, "text_projection", "text encoder", 2)[1] if name == "clip_g" else None
    return replace(config, skip=1, final_norm=False, projection=projection)


def _own_facts(name: str, facts: Mapping[str, object]) -> Mapping[str, object]:
    """Returns the facts about this encoder under the names of the only one."""
    if name != "clip_g":
        return facts
    return {"clip_heads": facts.get("clip_g_heads"), "clip_activation": facts.get("clip_g_activation")}


def _clip_config(shapes: Shapes, facts: Mapping[str, object]) -> TextConfig:
    vocabulary, width = shape_of(shapes, "text_model.embeddings.token_embedding.weight", "text encoder", 2)[:2]
    return TextConfig(
        width=width,
        layers=count_numbered(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        heads=number_of(facts, "clip_heads", max(1, width // 64)),
        mlp_width=shape_of(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", "text encoder", 2)[0],
        vocab_size=vocabulary,
        positions=shape_of(shapes, "text_model.embeddings.position_embedding.weight", "text encoder", 2)[0],
        activation="gelu" if facts.get("clip_activation") == "gelu" else "quick_gelu",
    )


def _openclip_config(shapes: Shapes, facts: Mapping[str, object]) -> TextConfig:
    vocabulary, width = shape_of(shapes, "token_embedding.weight", "text encoder", 2)[:2]
    layers = count_numbered(shapes, r"transformer\.resblocks\.(\d+)\.")
    return TextConfig(
        layout="openclip",
        width=width,
        layers=layers,
        heads=number_of(facts, "clip_heads", max(1, width // 64)),
        mlp_width=shape_of(shapes, "transformer.resblocks.0.mlp.c_fc.weight", "text encoder", 2)[0],
        vocab_size=vocabulary,
        positions=shape_of(shapes, "positional_embedding", "text encoder", 2)[0],
        activation="quick_gelu" if facts.get("clip_activation") == "quick_gelu" else OPENCLIP_H.activation,
        # SD2 skips the last layer. diffusers saves the encoder without this layer, so the number of layers is odd.
        skip=OPENCLIP_H.skip if layers % 2 == 0 else 0,
        pad_token=OPENCLIP_H.pad_token,
    )
