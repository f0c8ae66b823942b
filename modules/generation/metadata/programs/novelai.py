"""Reads NovelAI's settings: the prompt in `Description`, the rest as JSON in `Comment`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modules.generation.metadata.recipe import NO_EMPHASIS, Recipe, as_fields, json_object, prompt_text, size_text

PROGRAM = "NovelAI"
SCHEDULES = {"native": "Normal"}


def read(texts: Mapping[str, str]) -> Recipe | None:
    values = json_object(texts.get("Comment"))
    if values is None or texts.get("Software") != PROGRAM:
        return None
    prompt = prompt_text(values.get("prompt", texts.get("Description")), PROGRAM)
    negative = prompt_text(values.get("uc"), PROGRAM)
    schedule = values.get("noise_schedule")
    fields = {
        "Steps": values.get("steps"),
        "Sampler": str(values.get("sampler", "")).removeprefix("k_"),
        "Schedule type": SCHEDULES.get(schedule, schedule) if isinstance(schedule, str) else schedule,
        "CFG scale": values.get("scale"),
        "Seed": values.get("seed"),
        "Size": size_text(values.get("width"), values.get("height")),
        "Denoising strength": values.get("strength") if _from_picture(values) else None,
        "Init image": PROGRAM if _from_picture(values) else None,
        "Emphasis": NO_EMPHASIS,
    }
    return Recipe(
        program=PROGRAM,
        prompt=prompt,
        negative=negative,
        fields=as_fields(fields),
        left_out=tuple(_left_out(values, texts, prompt + negative)),
    )


def _from_picture(values: Mapping[str, Any]) -> bool:
    return "Img2Img" in str(values.get("request_type", "")) or bool(values.get("image"))


def _left_out(values: Mapping[str, Any], texts: Mapping[str, str], prompts: str) -> Iterator[str]:
    yield f"the model ({texts.get('Source', 'NovelAI Diffusion')[:60]})"
    names = {
        "sm": "SMEA",
        "dynamic_thresholding": "decrisper",
        "reference_image_multiple": "vibe transfer",
        "controlnet_model": "ControlNet",
    }
    yield from (label for name, label in names.items() if values.get(name))
    if values.get("cfg_rescale") not in (None, 0, 0.0):
        yield "CFG rescale"
    if "{" in prompts or "[" in prompts or "::" in prompts:
        yield "the weights in {braces} and [brackets]"
