"""Reads Fooocus' own scheme: a JSON object in `parameters`, with the scheme's name in another text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modules.generation.metadata.recipe import Recipe, as_fields, json_object, lora_fields, prompt_text
from modules.images.metadata import PNG_KEY

PROGRAM = "Fooocus"
MARKS = {"base_model", "guidance_scale", "performance", "styles", "resolution", "adm_guidance"}
LEFT_OUT = {
    "styles": "styles",
    "prompt_expansion": "prompt expansion",
    "sharpness": "sharpness",
    "adm_guidance": "ADM guidance",
    "refiner_model": "refiner",
    "freeu": "FreeU",
    "inpaint_method": "inpainting",
}
OFF = (None, "", "None", "[]", "0", "0.0", 0, [], ())
_LORA = re.compile(r"lora_combined_[0-9]{1,3}")


def read(texts: Mapping[str, str]) -> Recipe | None:
    values = json_object(texts.get(PNG_KEY))
    if values is None or not (texts.get("fooocus_scheme") or len(MARKS & set(values)) > 1):
        return None
    # Older versions wrote the labels shown on their page: "Guidance Scale" for guidance_scale.
    values = {name.lower().replace(" ", "_"): value for name, value in values.items()}
    fields = {
        "Steps": values.get("steps"),
        "Sampler": values.get("sampler"),
        "Schedule type": values.get("scheduler"),
        "CFG scale": values.get("guidance_scale"),
        "Seed": values.get("seed"),
        "Size": values.get("resolution"),
        "Model": values.get("base_model"),
        "VAE": None if values.get("vae") == "Default (model)" else values.get("vae"),
        "Clip skip": values.get("clip_skip"),
        "Emphasis": "comfy",
    }
    return Recipe(
        program=PROGRAM,
        prompt=prompt_text(values.get("prompt"), PROGRAM),
        negative=prompt_text(values.get("negative_prompt"), PROGRAM),
        fields=as_fields(fields) | lora_fields(_loras(values)),
        left_out=tuple(label for name, label in LEFT_OUT.items() if values.get(name) not in OFF),
    )


def _loras(values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Reads `lora_combined_1: "name.safetensors : 0.5"`."""
    for name, value in values.items():
        if _LORA.fullmatch(name) and isinstance(value, str):
            file, _, strength = value.rpartition(" : ")
            yield file, float(strength) if re.fullmatch(r"-?[0-9]{1,3}(\.[0-9]{0,9})?", strength) else strength
