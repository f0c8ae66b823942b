"""Reads InvokeAI's three formats: `invokeai_metadata`, the older `sd-metadata`, and the command line in `Dream`."""

from __future__ import annotations

import re
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

PROGRAM = "InvokeAI"
_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")  # older versions wrote the negative prompt in brackets
_DREAM = re.compile(r'"((?:\\.|[^"\\])*)"(.*)', re.DOTALL)
_OPTION = re.compile(r"(?:^|\s)-{1,2}([A-Za-z_]+)[ =]?([^\s\"]*)")
_WEIGHTED = re.compile(r"[\w)][+-]+(?:[\s,)]|$)|\)[0-9.]+")  # "word++" and "(some words)1.2"


def read(texts: Mapping[str, str]) -> Recipe | None:
    values = json_object(texts.get("invokeai_metadata"))
    if values is not None:
        return _new(values)
    values = json_object(texts.get("sd-metadata"))
    if values is not None:
        return _old(values)
    return _dream(texts.get("Dream", ""))


def _new(values: Mapping[str, Any]) -> Recipe:
    prompt = prompt_text(values.get("positive_prompt"), PROGRAM)
    model, vae = member(values, "model"), member(values, "vae")
    fields = _sampler(values.get("scheduler")) | as_fields(
        {
            "Steps": values.get("steps"),
            "CFG scale": values.get("cfg_scale"),
            "CFG rescale": values.get("cfg_rescale_multiplier"),
            "Seed": values.get("seed"),
            "Size": size_text(values.get("width"), values.get("height")),
            "Model": model.get("name", model.get("model_name")),
            "VAE": vae.get("name", vae.get("model_name")),
            "Clip skip": _clip_skip(values.get("clip_skip")),
            "Denoising strength": values.get("strength") if _from_picture(values) else None,
            "Init image": "InvokeAI" if _from_picture(values) else None,
            "Emphasis": COMFY_EMPHASIS,
        }
    )
    return Recipe(
        program=PROGRAM,
        prompt=prompt,
        negative=prompt_text(values.get("negative_prompt"), PROGRAM),
        fields=fields | lora_fields(_loras(values.get("loras"))),
        left_out=tuple(_left_out(values, prompt)),
    )


def _from_picture(values: Mapping[str, Any]) -> bool:
    return bool(values.get("init_image")) or str(values.get("generation_mode", "")).endswith(("img2img", "inpaint"))


def _clip_skip(layers: object) -> object:
    """Converts clip skip: InvokeAI counts the skipped layers, A1111 counts from the last layer to the one in use."""
    return layers + 1 if isinstance(layers, int) and not isinstance(layers, bool) and layers else None


def _loras(entries: object) -> Iterator[tuple[object, object]]:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            model = member(entry, "model") or member(entry, "lora")
            yield model.get("name", model.get("model_name")), entry.get("weight", 1.0)


def _left_out(values: Mapping[str, Any], prompt: str) -> Iterator[str]:
    names = {
        "controlnets": "ControlNets",
        "ipAdapters": "IP adapters",
        "t2iAdapters": "T2I adapters",
        "refiner_model": "refiner",
        "hrf_enabled": "high resolution fix",
        "seamless_x": "tiling",
        "seamless_y": "tiling",
        "positive_style_prompt": "style prompt",
        "regions": "regions",
    }
    yield from (label for name, label in names.items() if values.get(name))
    if str(values.get("rand_device", "cpu")) != "cpu":
        yield "random numbers of the GPU"
    if _WEIGHTED.search(prompt):
        yield "weights of words as InvokeAI writes them"


def _sampler(name: object) -> dict[str, str]:
    """Reads a sampler's name: the `_k` of `dpmpp_2m_k` means the Karras schedule; old names begin with `k_`."""
    if not isinstance(name, str):
        return as_fields({"Sampler": name})
    plain = name.removeprefix("k_").removesuffix("_k")
    return as_fields({"Sampler": plain, "Schedule type": "Karras" if name.endswith("_k") else "Normal"})


def _old(values: Mapping[str, Any]) -> Recipe:
    image = member(values, "image")
    given = image.get("prompt")
    if isinstance(given, list) and given and isinstance(given[0], dict):  # [{"prompt": ..., "weight": 1.0}]
        given = given[0].get("prompt")
    fields = _sampler(image.get("sampler")) | as_fields(
        {
            "Steps": image.get("steps"),
            "CFG scale": image.get("cfg_scale"),
            "Seed": image.get("seed"),
            "Size": size_text(image.get("width"), image.get("height")),
            "Model": values.get("model_weights"),
            "Denoising strength": image.get("strength") if image.get("type") == "img2img" else None,
            "Init image": "InvokeAI" if image.get("type") == "img2img" else None,
            "Emphasis": COMFY_EMPHASIS,
        }
    )
    return _with_negative(prompt_text(given, PROGRAM), fields)


def _dream(text: str) -> Recipe | None:
    """Reads `"a cat [dog]" -s 50 -S 123 -W 512 -H 512 -C 7.5 -A k_lms`."""
    found = _DREAM.match(text.strip())
    if not found:
        return None
    options = dict(_OPTION.findall(found[2]))
    fields = _sampler(options.get("A")) | as_fields(
        {
            "Steps": options.get("s"),
            "CFG scale": options.get("C"),
            "Seed": options.get("S"),
            "Size": size_text(options.get("W"), options.get("H")),
            "Denoising strength": options.get("f"),
            "Init image": options.get("I"),
            "Emphasis": COMFY_EMPHASIS,
        }
    )
    return _with_negative(found[1].replace('\\"', '"'), fields)


def _with_negative(prompt: str, fields: Mapping[str, str]) -> Recipe:
    negative = ", ".join(words.strip() for words in _NEGATIVE.findall(prompt))
    left = ("weights of words as InvokeAI writes them",) if _WEIGHTED.search(prompt) else ()
    plain = _NEGATIVE.sub("", prompt).strip()
    return Recipe(program=PROGRAM, prompt=plain, negative=negative, fields=fields, left_out=left)
