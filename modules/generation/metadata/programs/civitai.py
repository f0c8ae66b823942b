"""Reads pictures from Civitai's generator: a ComfyUI graph in a JPEG comment, with the settings in `extraMetadata`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.generation.metadata.recipe import Recipe, as_fields, json_object, prompt_text, size_text
from modules.images.metadata import PNG_KEY

PROGRAM = "Civitai"
FROM_PICTURE = ("img2img", "image-to-image", "face-fix", "upscale")


def read(texts: Mapping[str, str]) -> Recipe | None:
    values = json_object(texts.get(PNG_KEY))
    inner = None if values is None else values.get("extraMetadata")
    given = json_object(inner) if isinstance(inner, str) else inner
    if not isinstance(given, dict):
        return None
    mode = str(given.get("workflowId", given.get("workflow", "")))
    fields = {
        "Steps": given.get("steps"),
        "Sampler": given.get("sampler"),
        "CFG scale": given.get("cfgScale"),
        "Seed": given.get("seed"),
        "Size": size_text(given.get("width"), given.get("height")),
        "Clip skip": given.get("clipSkip"),
        "Init image": PROGRAM if mode.startswith(FROM_PICTURE) else None,
        "Denoising strength": given.get("denoise") if mode.startswith(FROM_PICTURE) else None,
    }
    return Recipe(
        program=PROGRAM,
        prompt=prompt_text(given.get("prompt"), PROGRAM),
        negative=prompt_text(given.get("negativePrompt"), PROGRAM),
        fields=as_fields(fields),
        left_out=tuple(_left_out(given, mode)),
    )


def _left_out(given: Mapping[str, Any], mode: str) -> list[str]:
    told = ["the checkpoint and LoRAs (known by Civitai's numbers only)"] if given.get("resources") else []
    return told + (["the second pass"] if "hires" in mode else [])
