"""Converts any ControlNet file layout to complete weights with cldm names, without a prefix."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.detection.foreign import foreign_kind
from modules.loader.files.open_file import require_weights
from modules.loader.layouts.diffusers import controlnet_to_ldm
from modules.loader.layouts.parts import strip_prefix

Tensors = dict[str, Tensor]

_PREFIX = "control_model."
_HINT = "input_hint_block.0.weight"
_STEM = "input_blocks.0.0"
# Marker keys of a control-LoRA and of a ControlNet stored as the difference from the UNet it was trained on.
_CONTROL_LORA, _DIFFERENCE = "lora_controlnet", "difference"
_OTHER_UNION = "control_type_embedding"  # Flux's and SD3's


def cldm_weights(state: Mapping[str, Tensor], base: Mapping[str, Tensor] | None) -> Tensors:
    """Converts a file; `base` is the UNet's weights, for files that contain only differences from these."""
    is_difference = _DIFFERENCE in state or f"{_PREFIX}{_DIFFERENCE}" in state
    weights = strip_prefix(state, _PREFIX) or dict(state)
    if any(name.startswith("controlnet_cond_embedding.") for name in weights):
        weights = controlnet_to_ldm(weights)
    if _HINT not in weights or any(name.startswith(_OTHER_UNION) for name in weights):
        raise ModelFileError(f"It is {_kind(weights)}; use a ControlNet of SD1.x, SD2.x or SDXL.")
    if _CONTROL_LORA in weights or is_difference:  # these weights are used in computations before any other check
        for name in weights.keys() - {_CONTROL_LORA, _DIFFERENCE}:
            require_weights(name, weights[name])
    if _CONTROL_LORA in weights:
        return _merge_control_lora(weights, _required(base))
    if is_difference:
        weights.pop(_DIFFERENCE, None)
        return _add_base(weights, _required(base))
    return weights


def _kind(weights: Tensors) -> str:
    if any(name.startswith(_OTHER_UNION) for name in weights):
        return "a union ControlNet of another model family"
    return f"{foreign_kind(weights) or 'some other kind of file'}, not a ControlNet"


def _required(base: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    if base is None:
        raise ModelFileError("It holds only differences from a UNet; load it together with a checkpoint.")
    return base


def _merge_control_lora(file: Tensors, base: Mapping[str, Tensor]) -> Tensors:
    """Expands Stability's control-LoRA: adds up @ down to the base's encoder half; keeps the file's full weights."""
    # Copied so that a LoRA merged into the UNet in place does not affect the ControlNet.
    encoder = {
        name: base[name].to("cpu", copy=True) for name in base if not name.startswith(("output_blocks.", "out."))
    }
    merged = encoder | {name: tensor for name, tensor in file.items() if name.endswith((".weight", ".bias"))}
    for name, down in file.items():
        layer, _, end = name.rpartition(".")
        if end != "down":
            continue
        weight = f"{layer}.weight"
        if weight not in base or f"{layer}.up" not in file:
            raise ModelFileError(f"Its {quoted(name)} belongs to no layer of this checkpoint.")
        merged[weight] = _plus_low_rank(base[weight], file[f"{layer}.up"], down, is_stem=layer == _STEM)
    return merged


def _plus_low_rank(weight: Tensor, up: Tensor, down: Tensor, *, is_stem: bool) -> Tensor:
    if min(up.ndim, down.ndim, weight.ndim) < 2 or 0 in (*up.shape, *down.shape):
        raise ModelFileError(f"It changes a layer by factors of shape {list(up.shape)} and {list(down.shape)}.")
    up, down = up.float().flatten(1), down.float().flatten(1)
    if is_stem:
        weight = weight[:, : down.shape[1] // weight[0, 0].numel()]
    if up.shape[1] != down.shape[0] or weight.numel() != up.shape[0] * down.shape[1]:
        rows, columns = up.shape[0], down.shape[1]
        raise ModelFileError(
            f"It changes a layer of {rows} x {columns} weights where this checkpoint's is {list(weight.shape)}."
        )
    return weight.float().cpu() + (up @ down).reshape(weight.shape)


def _add_base(weights: Tensors, base: Mapping[str, Tensor]) -> Tensors:
    """Adds the base's weight where name and shape match (zero convolutions have no counterpart)."""
    added = dict(weights)
    for name, difference in weights.items():
        if name in base:
            # An inpainting UNet has more input channels than the ControlNet.
            is_stem = name == f"{_STEM}.weight" and difference.ndim == 4
            own = base[name][:, : difference.shape[1]] if is_stem else base[name]
            if own.numel() == difference.numel():
                added[name] = own.float().cpu().reshape(difference.shape) + difference.float()
    return added
