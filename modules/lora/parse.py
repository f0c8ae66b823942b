"""Parses a LoRA file into LoraWeights: groups the keys by layer and builds a patch for each."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.files.open_file import require_weights
from modules.lora.weights import Difference, Hadamard, Kronecker, LowRank, Patch

Slots = Mapping[str, Tensor]

# Key suffix -> purpose of the tensor.
KEY_ENDINGS = {
    ".lora_up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_mid.weight": "mid",
    ".lora_B": "up",
    ".lora_A": "down",
    ".lora.up.weight": "up",
    ".lora.down.weight": "down",
    "_lora.up.weight": "up",
    "_lora.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".alpha": "alpha",
    ".dora_scale": "magnitude",
    ".lora_magnitude_vector": "magnitude_vector",
    ".diff": "diff",
    ".diff_b": "diff_b",
    ".w_norm": "diff",
    ".b_norm": "diff_b",
} | {
    f".{name}": name
    for name in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    )
}
# Slots that are matrices in every layer, and the minimum number of dimensions of slots that may have fewer than two.
_MATRICES = {"lokr_w1", *(f"{kind}_w{side}_{half}" for kind in ("lokr", "hada") for side in (1, 2) for half in "ab")}
_RANKS = {"magnitude": 1, "magnitude_vector": 1, "diff": 1, "diff_b": 0}
# PEFT may append the adapter's name and ".weight" to its suffixes; biases are not supported.
_PEFT_ENDING = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector)(?:\.(?!bias$)[^.]+)?(?:\.weight)?$")


@dataclass(frozen=True, eq=False)
class LoraWeight:
    """One changed parameter: the layer's name in the file, "weight" or "bias", and its keys."""

    module: str
    parameter: str
    patch: Patch
    keys: tuple[str, ...]


@dataclass
class _Layer:
    """The tensors of one layer by purpose, and their keys."""

    slots: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def parse_lora(state_dict: Mapping[str, Tensor], scales: Mapping[str, float] | None = None) -> list[LoraWeight]:
    """Returns every complete layer of the file; reporting unknown keys is up to the caller.

    `scales` contains alpha / rank (from PEFT's configuration) for layers without an alpha in the file.
    """
    weights: list[LoraWeight] = []
    for module, layer in _group(state_dict).items():
        _check_slots(module, layer.slots)
        weights += _layer_weights(module, layer, (scales or {}).get(module, 1.0))
    for weight in weights:
        _check(weight)
    return weights


def split_key(key: str) -> tuple[str, str] | None:
    """Returns the layer and purpose of a key, or None for an unknown kind of key."""
    key = _PEFT_ENDING.sub(r".\1", key)
    for suffix, slot in KEY_ENDINGS.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix), slot
    return None


def _group(state_dict: Mapping[str, Tensor]) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = defaultdict(_Layer)
    for key, tensor in state_dict.items():
        found = split_key(key)
        if found is not None:
            module, slot = found
            layers[module].slots[slot] = tensor.flatten(1) if slot in _MATRICES and _ends_in_ones(tensor) else tensor
            layers[module].keys[slot] = key
    return layers


def _ends_in_ones(tensor: Tensor) -> bool:
    """Returns True if the tensor is a matrix that was saved as a 1x1 convolution."""
    return tensor.ndim > 2 and tensor[0, 0].numel() == 1 if 0 not in tensor.shape else False


def _check_slots(module: str, slots: Slots) -> None:
    """Raises ModelFileError for a tensor that does not match its name, before the tensor is used."""
    for slot, tensor in slots.items():
        label = f"{module}.{slot}"
        if slot == "alpha":
            if tensor.numel() != 1 or tensor.is_meta or tensor.is_complex() or not math.isfinite(tensor.item()):
                raise ModelFileError(f"{quoted(label)} is not a single number; use another copy of this LoRA.")
            continue
        require_weights(label, tensor)
        if tensor.ndim < _RANKS.get(slot, 2) or 0 in tensor.shape:
            raise ModelFileError(
                f"{quoted(label)} has shape {list(tensor.shape)}, which changes no layer; use another copy of it."
            )


def _layer_weights(module: str, layer: _Layer, default_scale: float) -> list[LoraWeight]:
    found: list[LoraWeight] = []
    patch = _weight_patch(layer.slots, default_scale)
    if patch is not None:
        keys = tuple(key for slot, key in layer.keys.items() if slot != "diff_b")
        found.append(LoraWeight(module, "weight", patch, keys))
    if "diff_b" in layer.slots:
        bias = Difference(difference=layer.slots["diff_b"].flatten())
        found.append(LoraWeight(module, "bias", bias, (layer.keys["diff_b"],)))
    return found


def _weight_patch(slots: Slots, default_scale: float) -> Patch | None:
    """Builds the patch from the given tensors; returns None if a tensor is missing."""
    magnitude = _magnitude(slots)
    if "up" in slots and "down" in slots:
        up, down, mid = slots["up"], slots["down"], slots.get("mid")
        scale = _scale(slots, down.shape[0], default_scale)
        return LowRank(up=up, down=down, mid=mid, scale=scale, magnitude=magnitude)
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= slots.keys():
        return _hadamard(slots, magnitude, default_scale)
    left = _factors(slots, ("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
    right = _factors(slots, ("lokr_w2",), ("lokr_t2", "lokr_w2_a", "lokr_w2_b"), ("lokr_w2_a", "lokr_w2_b"))
    if left and right:
        scale = _scale(slots, _kronecker_rank(slots), default_scale)
        return Kronecker(left=left, right=right, scale=scale, magnitude=magnitude)
    return Difference(difference=slots["diff"]) if "diff" in slots else None


def _hadamard(slots: Slots, magnitude: Tensor | None, default_scale: float) -> Hadamard:
    return Hadamard(
        a1=slots["hada_w1_a"],
        b1=slots["hada_w1_b"],
        a2=slots["hada_w2_a"],
        b2=slots["hada_w2_b"],
        core1=slots.get("hada_t1"),
        core2=slots.get("hada_t2"),
        scale=_scale(slots, slots["hada_w1_b"].shape[0], default_scale),
        magnitude=magnitude,
    )


def _factors(slots: Slots, *choices: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Returns the tensors for the first of `choices` with all names present."""
    for names in choices:
        if all(name in slots for name in names):
            return tuple(slots[name] for name in names)
    return ()


def _kronecker_rank(slots: Slots) -> int | None:
    """Returns the rank to divide alpha by, or None if both sides are full matrices, for which LyCORIS ignores alpha."""
    for name in ("lokr_w2_b", "lokr_w1_b"):
        if name in slots:
            return slots[name].shape[0]
    return None


def _scale(slots: Slots, rank: int | None, default: float) -> float:
    if rank is None:
        return default
    # Some trainers write an alpha of 0 for "not set".
    alpha = float(slots["alpha"].item()) if "alpha" in slots else 0.0
    return alpha / rank if alpha else default


def _magnitude(slots: Slots) -> Tensor | None:
    # PEFT stores one number per output channel. For convolutions its shape [1, out, 1, 1] looks like one per input.
    return slots["magnitude_vector"].flatten() if "magnitude_vector" in slots else slots.get("magnitude")


def _check(weight: LoraWeight) -> None:
    """Rejects factors with incompatible shapes (tested without data), and values that are not finite."""
    layer = quoted(weight.module)
    try:
        product = weight.patch.product(torch.empty((), device="meta"))
        rows, columns = weight.patch.size
    except (RuntimeError, IndexError) as error:
        raise ModelFileError(f"The tensors of {layer} do not fit each other; use another copy of this LoRA.") from error
    if product.numel() != rows * columns:
        raise ModelFileError(f"The tensors of {layer} have unknown shapes; use another copy of this LoRA.")
    if not all(_is_finite(factor) for factor in weight.patch.factors()):
        raise ModelFileError(f"The LoRA's {layer} holds values that are not numbers; use another copy of it.")


def _is_finite(tensor: Tensor) -> bool:
    """Checks only the extremes, which is ten times faster than checking all values and detects NaN as well."""
    if tensor.numel() == 0:
        return True
    lowest, highest = torch.aminmax(tensor if tensor.element_size() > 1 else tensor.float())
    return math.isfinite(lowest) and math.isfinite(highest)
