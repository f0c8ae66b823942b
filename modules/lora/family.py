"""Recognises the model family of a LoRA by its key names and shapes."""

from __future__ import annotations

from modules.core.families import FAMILY_MARKS, has_mark
from modules.loader.detection.family_names import context_family
from modules.loader.detection.model_spec import ModelSpec
from modules.lora.names import canonical
from modules.lora.parse import LoraWeight

_CONTEXT_READERS = ("attn2_to_k", "attn2_to_v")
_TEXT_READERS = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "mlp_fc1")


def marked_family(weights: list[LoraWeight], spec: ModelSpec) -> str | None:
    """Recognises another family than the model's by names alone."""
    for family, marks in FAMILY_MARKS:
        if family not in spec.family and any(has_mark(weight.module, mark) for weight in weights for mark in marks):
            return family
    return None


def file_family(weights: list[LoraWeight], spec: ModelSpec) -> str | None:
    """Describes the family, in the same words as the loaded model if it is the same family; None if unknown."""
    # In SD1.x and SD2.x, cross-attention has the text encoder's width as input, so either width identifies the family.
    width = _columns(weights, _CONTEXT_READERS) or _columns(weights, _TEXT_READERS)
    return marked_family(weights, spec) or (context_family(width, spec) if width is not None else None)


def _columns(weights: list[LoraWeight], endings: tuple[str, ...]) -> int | None:
    for weight in weights:
        if weight.parameter == "weight" and canonical(weight.module).endswith(endings):
            return weight.patch.size[1]
    return None
