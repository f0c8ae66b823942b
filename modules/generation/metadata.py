"""GenerationOptions <-> the `parameters` text of a picture: what is written is all that is needed to make it again."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from modules.core.errors import OptionsError
from modules.generation.options import (
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
)
from modules.images.metadata import parse_parameters, write_parameters
from modules.images.save import read_parameters
from modules.sampling.names import label_of, resolve_sampler, resolve_scheduler

Choice = TypeVar("Choice", LoraChoice, ControlChoice, HiresOptions, InitImage)

# A1111's name of each plain option; order is the order in the text
PLAIN_KEYS = {
    "steps": "Steps",
    "cfg": "CFG scale",
    "clip_skip": "Clip skip",
    "emphasis": "Emphasis",
    "vae": "VAE",
    "prediction": "Prediction",
    "stable_fast": "Stable-Fast",
}

DECIDING_FACTS = ("Model hash", "Precision", "Torch")  # not settings of the request, but the picture depends on them


def to_parameters(options: GenerationOptions, index: int, facts: dict[str, str]) -> str:
    """The text for picture `index` of a resolved request; `facts` adds what the session knows (model hash, versions).

    The seed written is the picture's own. A member of a batch also names its place, since only the same batch
    reproduces it bit for bit.
    """
    seed, batch = options.seed, options.batch
    if seed is None or options.width is None or options.height is None:
        raise ValueError("parameters are written from resolved options only")
    labels = label_of(*sampler_and_scheduler(options.sampler, options.scheduler))
    info: dict[str, str] = {
        "Steps": str(options.steps),
        "Sampler": labels.sampler,
        "Schedule type": labels.schedule,
        "CFG scale": exact(options.cfg),
        "Seed": str(seed + index),
        "Size": f"{options.width}x{options.height}",
    }
    info |= facts
    for name in ("clip_skip", "emphasis", "vae", "prediction", "stable_fast"):
        value = getattr(options, name)
        if value is not None and value != "off":
            info[PLAIN_KEYS[name]] = str(value)
    info |= {text_encoder_key(position): name for position, name in enumerate(options.text_encoders)}
    if batch > 1:
        info |= {"Batch size": str(batch), "Batch pos": str(index % batch)}
    for position, lora in enumerate(options.loras):
        info[f"LoRA {position}"] = _pack(lora)
    for position, control in enumerate(options.controls):
        info[f"ControlNet {position}"] = _pack(control)
    if options.hires:
        info["Hires fix"] = _pack(options.hires)
        info |= {"Hires upscale": f"{options.hires.scale:g}", "Hires upscaler": options.hires.method}
    if options.init:
        info["Init image"] = _pack(options.init)
    denoise = options.init.denoise if options.init else options.hires.denoise if options.hires else None
    if denoise is not None:
        info["Denoising strength"] = f"{denoise:g}"
    return write_parameters(info, options.prompt, options.negative_prompt)


def text_encoder_key(position: int) -> str:
    return "Text encoder" if position == 0 else f"Text encoder {position + 1}"


def exact(value: float) -> str:
    """The shortest text that reads back as this very number; whole numbers without a point, as A1111 writes them."""
    return repr(float(value)).removesuffix(".0")


def changed_facts(before: Path, after: Path) -> list[str]:
    """Names of what decides the bits of a picture and is not the same in two files, as far as both tell."""
    (_, _, old), (_, _, new) = (parse_parameters(read_parameters(path)) for path in (before, after))
    return [key for key in DECIDING_FACTS if key in old and key in new and old[key] != new[key]]


def sampler_and_scheduler(sampler: str, scheduler: str | None) -> tuple[str, str]:
    """Ids of sampler and scheduler: the scheduler asked for, else the one in the sampler's label, else karras."""
    choice = resolve_sampler(sampler)
    if scheduler is None or scheduler.lower() == "automatic":
        scheduler = choice.scheduler or (scheduler or "karras")
    return choice.sampler, resolve_scheduler(scheduler, sampler=choice.sampler)


def from_picture(path: Path) -> GenerationOptions:
    """The request that made a picture file, ours or A1111's."""
    return from_parameters(read_parameters(path))


def from_parameters(text: str) -> GenerationOptions:
    """The request that makes the picture again, from our own or A1111's text; what is not named is at its default.

    Raises OptionsError when the text holds no settings.
    """
    prompt, negative, info = parse_parameters(text)
    if not info:
        raise OptionsError("This picture holds no generation settings (no 'parameters' text): it cannot be reproduced.")
    try:
        options = GenerationOptions(prompt=prompt, negative_prompt=negative, **_plain(info))
        return replace(options, **_choices(info))
    except (ValueError, TypeError, KeyError) as error:
        raise OptionsError(f"The settings in this picture are damaged ({error}); enter them by hand.") from error


def _plain(info: dict[str, str]) -> dict[str, Any]:
    sampler, scheduler = sampler_and_scheduler(info.get("Sampler", "Euler"), info.get("Schedule type", "Automatic"))
    width, height = (int(side) for side in info["Size"].lower().split("x")) if "Size" in info else (None, None)
    position, batch = int(info.get("Batch pos", 0)), int(info.get("Batch size", 1))
    seed = int(info["Seed"]) - position if "Seed" in info else None
    if "Batch pos" not in info:
        batch = 1
    return {
        "width": width,
        "height": height,
        "seed": seed,
        "batch": batch,
        "only": position if batch > 1 else None,
        "steps": int(info.get("Steps", 20)),
        "cfg": float(info.get("CFG scale", 7.0)),
        "sampler": sampler,
        "scheduler": scheduler,
        "clip_skip": int(info.get("Clip skip", 1)),
        "emphasis": info.get("Emphasis", "a1111").lower().replace("original", "a1111").replace("no norm", "no_norm"),
        "checkpoint": info.get("Model path", info.get("Model")),
        "vae": info.get("VAE"),
        "text_encoders": tuple(info[key] for position in range(2) if (key := text_encoder_key(position)) in info),
        "prediction": info.get("Prediction"),
        "stable_fast": info.get("Stable-Fast", "off"),
    }


def _choices(info: dict[str, str]) -> dict[str, Any]:
    hires = _unpack(HiresOptions, info["Hires fix"]) if "Hires fix" in info else _foreign_hires(info)
    return {
        "loras": _numbered(LoraChoice, info, "LoRA"),
        "controls": _numbered(ControlChoice, info, "ControlNet"),
        "hires": hires,
        "init": _unpack(InitImage, info["Init image"]) if "Init image" in info else None,
    }


def _foreign_hires(info: dict[str, str]) -> HiresOptions | None:
    """A1111's own keys, for its pictures."""
    if "Hires upscale" not in info:
        return None
    return HiresOptions(
        scale=float(info["Hires upscale"]),
        steps=int(info.get("Hires steps", 0)),
        denoise=float(info.get("Denoising strength", 0.7)),
    )


def _pack(choice: LoraChoice | ControlChoice | HiresOptions | InitImage) -> str:
    values = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in asdict(choice).items() if v is not None}
    return json.dumps(values, ensure_ascii=False)


def _unpack(kind: type[Choice], text: str) -> Choice:
    values: dict[str, Any] = json.loads(text)
    if not set(values) <= {f.name for f in fields(kind)}:
        raise ValueError(f"unreadable {kind.__name__}")
    for name in {"image", "mask"} & set(values):
        values[name] = Path(values[name])
    return kind(**values)


def _numbered(kind: type[Choice], info: dict[str, str], key: str) -> tuple[Choice, ...]:
    """Entries `key 0`, `key 1`, ... that are ours (A1111's ControlNet entries are not JSON and name no file)."""
    found: list[Choice] = []
    while (text := info.get(f"{key} {len(found)}", "")).startswith("{"):
        found.append(_unpack(kind, text))
    return tuple(found)
