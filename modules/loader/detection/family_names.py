"""Describes model families in words, by the width of the text input to cross-attention."""

from __future__ import annotations

from modules.core.families import CONTEXT_FAMILIES
from modules.loader.detection.model_spec import ModelSpec


def context_family(width: int, spec: ModelSpec) -> str:
    """Describes the family of an add-on of this width, in the same words as the loaded model if their widths match."""
    if width == spec.unet.context_dim:
        return model_family(spec)
    family = CONTEXT_FAMILIES.get(width, f"a model of context width {width}")
    return f"full-size {family}" if family == spec.family else family


def model_family(spec: ModelSpec) -> str:
    """Describes the loaded model in words; for a small model of a family, this includes the context width."""
    width = spec.unet.context_dim
    usual = CONTEXT_FAMILIES.get(width) == spec.family
    return spec.family if usual else f"a small {spec.family} of context width {width}"
