"""Names what tells the model families apart: the width of cross-attention's input, and names of layers (no torch)."""

from __future__ import annotations

CONTEXT_FAMILIES = {768: "SD1.x", 1024: "SD2.x", 2048: "SDXL", 1280: "the SDXL refiner"}
# Parts of a LoRA's layer names that occur in only one family; "^" means that the name starts with the part.
FAMILY_MARKS = (
    ("SDXL", ("^lora_te2_", "^text_encoder_2.", "label_emb", "add_embedding")),
    ("Flux", ("double_blocks", "single_blocks", "single_transformer_blocks")),
    ("SD3", ("joint_blocks", "attn_add_k_proj", "attn.add_k_proj")),
)


def has_mark(name: str, mark: str) -> bool:
    return name.startswith(mark[1:]) if mark.startswith("^") else mark in name
