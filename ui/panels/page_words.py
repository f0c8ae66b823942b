"""Says in the page's words what a sentence of the engine says in those of the command line."""

from __future__ import annotations

import re

from modules.generation.option_table import PLAIN_OPTIONS

# The labels of fields whose options are not plain, or have another label here.
LABELS = {
    "number": "Batch count",
    "seed": "Seed",
    "width": "Width",
    "height": "Height",
    "style": "Styles",
    "lora": "LoRA 1",
    "text-encoder": "Text encoder",
    "hires-method": "Upscaler",
    "keep-first-pass": "Keep the first pass too",
    "img2img": "Image to image",
    "mask": "Mask file: white is repainted (scaled to the picture)",
    "mask-colour": "Colour",
    "mask-tolerance": "Tolerance",
    "mask-invert": "Invert mask",
    "only-masked": "Only masked",
    "each-part": "Each part by itself",
    "upscaler": "Enlarge with",
    "tiled-upscale": "Tiled upscale",
}
ALL_LABELS = {option.name.replace("_", "-"): option.label for option in PLAIN_OPTIONS} | LABELS
LONGEST_FIRST = sorted(ALL_LABELS, key=len, reverse=True)
OPTION = re.compile(rf"--({'|'.join(map(re.escape, LONGEST_FIRST))})\b(?!-)(?: (?:FILE|NAME))?")


def in_page_words(text: str) -> str:
    """Replaces each option that the page has by its label. Options of the program's start stay as they are."""
    return OPTION.sub(lambda found: f"“{ALL_LABELS[found[1]].partition(':')[0]}”", text)
