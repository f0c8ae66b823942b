"""Reads SwarmUI's settings: a JSON object in `parameters` with `sui_image_params`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modules.generation.metadata.recipe import (
    COMFY_EMPHASIS,
    Recipe,
    as_fields,
    json_object,
    lora_fields,
    member,
    prompt_text,
    size_text,
)
from modules.images.metadata import PNG_KEY

PROGRAM = "SwarmUI"
PIXELS = {"pixel-lanczos": "lanczos"}  # our other methods enlarge latents
# Parameters that become fields or do not affect the picture; all others are reported.
KNOWN = frozenset(
    (
        *("prompt", "negativeprompt", "model", "seed", "steps", "cfgscale", "width", "height", "sampler", "scheduler"),
        *("vae", "automaticvae", "clipstopatlayer", "loras", "loraweights", "initimage", "initimagecreativity"),
        *("refinerupscale", "refinercontrol", "refinersteps", "refinercfgscale", "refinerupscalemethod"),
        *("refinercontrolpercentage", "refinermethod", "aspectratio", "images", "swarm_version", "date"),
        *("generation_time", "original_prompt", "original_negativeprompt", "nopreviews", "donotsave", "imageformat"),
        *("wildcardseed", "used_wildcards", "sidelength", "batchsize", "personalnote", "used_embeddings"),
    )
)


def read(texts: Mapping[str, str]) -> Recipe | None:
    values = json_object(texts.get(PNG_KEY))
    if values is None or "sui_image_params" not in values:
        return None
    given = member(values, "sui_image_params")
    start = given.get("initimagecreativity") if "initimage" in given or "initimagecreativity" in given else None
    fields = {
        "Steps": given.get("steps"),
        "Sampler": given.get("sampler", "euler"),  # SwarmUI's defaults
        "Schedule type": given.get("scheduler", "normal"),
        "CFG scale": given.get("cfgscale"),
        "Seed": given.get("seed"),
        "Size": size_text(given.get("width"), given.get("height")),
        "Model": given.get("model"),
        "VAE": None if str(given.get("vae")) in ("None", "Automatic") else given.get("vae"),
        "Clip skip": _clip_skip(given.get("clipstopatlayer")),
        "Init image": PROGRAM if start is not None or "initimage" in given else None,
        "Emphasis": COMFY_EMPHASIS,
        **_hires(given, start),
    }
    return Recipe(
        program=PROGRAM,
        prompt=prompt_text(given.get("prompt"), PROGRAM),
        negative=prompt_text(given.get("negativeprompt"), PROGRAM),
        fields=as_fields(fields) | lora_fields(_loras(given)),
        left_out=tuple(name for name, value in given.items() if name not in KNOWN and value not in (None, "", False)),
    )


def _clip_skip(layer: object) -> object:
    return -layer if isinstance(layer, int) and not isinstance(layer, bool) else layer


def _hires(given: Mapping[str, Any], start: object) -> dict[str, object]:
    """Reads the second pass, a refiner with an upscale by `pixel-lanczos`, `latent-bicubic` or `model-NAME`."""
    scale = given.get("refinerupscale")
    if scale in (None, 1, 1.0, "1"):
        return {"Denoising strength": start}
    method = str(given.get("refinerupscalemethod", "pixel-lanczos"))
    return {
        "Hires upscale": scale,
        "Hires upscaler": PIXELS.get(method, method.removeprefix("latent-").removeprefix("model-")),
        "Hires steps": given.get("refinersteps"),
        "Hires CFG Scale": given.get("refinercfgscale"),
        "Hires strength": given.get("refinercontrolpercentage", given.get("refinercontrol", 0.2)),
        "Denoising strength": start,
    }


def _loras(given: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    names, weights = given.get("loras"), given.get("loraweights")
    if not isinstance(names, list):
        return
    for position, name in enumerate(names):
        weight = weights[position] if isinstance(weights, list) and position < len(weights) else 1.0
        try:
            yield name, float(weight)
        except (TypeError, ValueError, OverflowError):
            yield name, weight  # it is reported as unreadable later, as a LoRA
