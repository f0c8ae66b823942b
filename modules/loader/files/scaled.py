"""Reads scaled fp8 files, which store each matrix as fp8 numbers and a factor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.files.open_file import holds_weights

# ComfyUI's names, oldest first; factors for a layer's inputs do not change any weights.
_FACTORS = (".scale_weight", ".weight_scale")
_BESIDE = (".scale_input", ".input_scale", ".comfy_quant")
_MARKER = "scaled_fp8"


def without_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts scaled weights to float32 by multiplying in their factors. Raises ModelFileError for other schemes."""
    if not any(name.endswith(_FACTORS) for name in tensors):
        return dict(tensors)
    plain = {name: tensor for name, tensor in tensors.items() if not _is_about_scales(name)}
    for name, factor in tensors.items():
        if name.endswith(_FACTORS):
            weight = f"{name.rpartition('.')[0]}.weight"
            if weight in plain:
                plain[weight] = _scaled(weight, plain[weight], factor)
    return plain


def _is_about_scales(name: str) -> bool:
    return name.endswith(_FACTORS + _BESIDE) or name.rpartition(".")[2] == _MARKER


def _scaled(name: str, weight: Tensor, factor: Tensor) -> Tensor:
    one_each_row = factor.ndim and factor.shape[0] == factor.numel() == (weight.shape[0] if weight.ndim else 0)
    if not holds_weights(weight) or not holds_weights(factor) or not (factor.numel() == 1 or one_each_row):
        raise ModelFileError(
            f"{quoted(name)} is compressed in an unsupported way (only fp8 with one factor per matrix or row is read); "
            "use another version of this file."
        )
    shape = (-1, *[1] * (weight.ndim - 1)) if one_each_row else ()
    return weight.to(torch.float32) * factor.to(torch.float32).reshape(shape)
