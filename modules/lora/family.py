"""Which model family a LoRA was made for, by its key names and shapes, and the name of the loaded model's own."""

from __future__ import annotations

from modules.loader.detect import ModelSpec
from modules.lora.names import canonical
from modules.lora.parse import LoraWeight

# Width of the text that cross-attention reads -> family.
CONTEXT_FAMILIES = {768: "SD1.x", 1024: "SD2.x", 2048: "SDXL", 1280: "the SDXL refiner"}
# Pieces of layer names that only one family has; "^" marks a piece at the start.
FAMILY_MARKS = (
    ("SDXL", ("^lora_te2_", "^text_encoder_2.", "label_emb", "add_embedding")),
    ("Flux", ("double_blocks", "single_blocks", "single_transformer_blocks")),
    ("SD3", ("joint_blocks", "attn_add_k_proj", "attn.add_k_proj")),
)
_CONTEXT_READERS = ("attn2_to_k", "attn2_to_v")
_TEXT_READERS = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "mlp_fc1")


def marked_family(weights: list[LoraWeight]) -> str | None:
    """A family that is told by names alone; none of these is one we run."""
    for family, marks in FAMILY_MARKS:
        if any(_has_mark(weight.module, mark) for weight in weights for mark in marks):
            return family
    return None


def file_family(weights: list[LoraWeight], spec: ModelSpec) -> str | None:
    """The family in words, in the loaded model's own words when it is the same; None when nothing in the file tells."""
    # The text encoder's width is what cross-attention reads in SD1.x and SD2.x, so either one tells.
    width = _columns(weights, _CONTEXT_READERS) or _columns(weights, _TEXT_READERS)
    if width is None:
        return marked_family(weights)
    if width == spec.unet.context_dim:
        return marked_family(weights) or model_family(spec)
    return marked_family(weights) or CONTEXT_FAMILIES.get(width, f"a model of context width {width}")


def model_family(spec: ModelSpec) -> str:
    """The loaded model in words; small models of a family are told by their context width."""
    width = spec.unet.context_dim
    return (
        spec.family if CONTEXT_FAMILIES.get(width) == spec.family else f"a small {spec.family} of context width {width}"
    )


def _has_mark(name: str, mark: str) -> bool:
    return name.startswith(mark[1:]) if mark.startswith("^") else mark in name


def _columns(weights: list[LoraWeight], endings: tuple[str, ...]) -> int | None:
    for weight in weights:
        if weight.parameter == "weight" and canonical(weight.module).endswith(endings):
            return weight.patch.size[1]
    return None
