"""Reads a separate text encoder from a file of either layout, a checkpoint or a diffusers folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.detection.foreign import foreign_kind
from modules.loader.files.open_file import Weights, naming
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.diffusers import text_encoder_metadata, weight_files
from modules.loader.layouts.key_maps import CLIP_PREFIX, OPENCLIP_PREFIX, TEXT_PREFIXES

# First parts of names in a Hugging Face CLIP (many programs save it without the outer level) and in an OpenCLIP.
_HUGGING_FACE = ("text_model.", "embeddings.", "encoder.layers.", "final_layer_norm.")
_OPENCLIP = ("transformer.resblocks.", "token_embedding.", "positional_embedding", "ln_final.")


def open_text_encoder(path: Path) -> Weights:
    """Opens the weights with a checkpoint's names. Raises ModelFileError if the file has no CLIP of SD1 or SD2."""
    if path.is_dir():
        folder = path / "text_encoder" if (path / "text_encoder").is_dir() else path
        weights = replace(open_weights(weight_files(folder)[0]), metadata=text_encoder_metadata(folder))
    else:
        weights = open_weights(path)
    with naming(path):
        return replace(weights, tensors=_as_in_checkpoint(weights.tensors))


def _as_in_checkpoint(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith(TEXT_PREFIXES)}
    if inside:
        return inside
    # ComfyUI saves a CLIP with one more level in the names than Hugging Face.
    names = {name: name.removeprefix("transformer.") if "text_model." in name else name for name in tensors}
    for prefix, roots in ((CLIP_PREFIX, _HUGGING_FACE), (OPENCLIP_PREFIX, _OPENCLIP)):
        if any(name.endswith("token_embedding.weight") and name.startswith(roots) for name in names.values()):
            return {prefix + names[name]: tensor for name, tensor in tensors.items() if names[name].startswith(roots)}
    raise ModelFileError(
        f"This file is {foreign_kind(tensors) or 'of an unknown kind'} and cannot be used as the text encoder of "
        "SD1 or SD2; choose a CLIP-L or OpenCLIP-H file, or a checkpoint."
    )


def with_text_encoder(checkpoint: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replaces the checkpoint's text encoder; returns the checkpoint unchanged if `text` is empty."""
    if not text:
        return dict(checkpoint)
    return {name: tensor for name, tensor in checkpoint.items() if not name.startswith(TEXT_PREFIXES)} | dict(text)
