"""Fills the form from a recalled request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modules.core.sizes import Sides
from modules.generation.option_table import REFINER_START
from modules.generation.options import (
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
)
from ui.fields import (
    AUTOMATIC,
    CONTROL_SLOTS,
    IMAGE_MODE,
    INIT_PLAIN,
    LORA_SLOTS,
    OPTIONS,
    OUTPAINT,
    TEXT_FIELDS,
    TEXT_MODE,
    editor_value,
)

Values = Mapping[str, Any]
HIRES_PLAIN = ("scale", "width", "height", "method", "steps", "denoise", "cfg")
FIELD_STRENGTH = 2.0  # the sliders go from -2 to 2; values beyond that go into the prompt


def to_form(options: GenerationOptions, fresh: Values, lost: Sequence[Path] = ()) -> dict[str, Any]:
    """Returns all fields for a recalled request without its `lost` pictures; other fields are as in `fresh`."""
    loras, extra = fit_slots(options.loras)
    form = {
        **fresh,
        **{name: value for name in OPTIONS if (value := getattr(options, name)) is not None},
        "prompt": " ".join([options.prompt, *extra]).strip(),
        "negative_prompt": options.negative_prompt,
        "styles": list(options.styles),
        "seed": "" if options.seed is None else str(options.seed),
        **dict(zip(TEXT_FIELDS, options.text_encoders, strict=False)),
        "refiner": options.refiner or AUTOMATIC,
        "refiner_start": REFINER_START if options.refiner_start is None else options.refiner_start,
        "width": options.width or fresh["width"],
        "height": options.height or fresh["height"],
        "stable_fast": options.stable_fast != "off",
    }
    if options.stable_fast != "off":
        form["level"] = options.stable_fast
    for slot, lora in enumerate(loras, start=1):
        form |= {f"lora_{slot}": lora.name, f"lora_{slot}_strength": lora.strength}
        form |= {f"lora_{slot}_text": lora.text_strength}
    for slot, control in enumerate(options.controls[:CONTROL_SLOTS], start=1):
        form |= control_form(control, slot, lost)
    return form | hires_form(options.hires) | init_form(options.init, lost) | tiled_form(options)


def fit_slots(loras: tuple[LoraChoice, ...]) -> tuple[list[LoraChoice], list[str]]:
    """Splits LoRAs into those that fit the form's slots and, for the rest, tags for the prompt."""
    plain = [lora for lora in loras if abs(lora.strength) <= FIELD_STRENGTH]
    plain = plain[:LORA_SLOTS]
    others = [lora for lora in loras if lora not in plain]
    return plain, [f"<lora:{lora.name}:{lora.strength:g}:{lora.clip_strength:g}>" for lora in others]


def control_form(control: ControlChoice, slot: int, lost: Sequence[Path]) -> dict[str, Any]:
    image = None if control.image in lost else str(control.image)
    names = ("strength", "start", "end", "mode", "preprocessor")
    return {
        f"control_{slot}": control.name,
        f"control_{slot}_image": image,
        f"control_{slot}_kind": control.kind or AUTOMATIC,
        **{f"control_{slot}_{name}": getattr(control, name) for name in names},
    }


def hires_form(hires: HiresOptions | None) -> dict[str, Any]:
    if hires is None:
        return {"hires": False}
    return {
        "hires": True,
        **{f"hires_{name}": getattr(hires, name) for name in HIRES_PLAIN},
        "hires_sampler": hires.sampler or AUTOMATIC,
        "hires_scheduler": hires.scheduler or AUTOMATIC,
        "hires_keep": hires.keep_first_pass,
    }


def init_form(init: InitImage | None, lost: Sequence[Path]) -> dict[str, Any]:
    """Restores the picture and, as a mask file, its mask."""
    if init is None:
        return {"mode": TEXT_MODE}
    form = {name: getattr(init, name) for name in INIT_PLAIN}
    form |= dict(zip(OUTPAINT, init.outpaint or Sides(), strict=True))
    mask_file = None if init.mask is None or init.mask in lost else str(init.mask)
    editor = None if init.image in lost else editor_value(init.image)
    return {**form, "mode": IMAGE_MODE, "keep_size": False, "editor": editor, "mask_file": mask_file}


def tiled_form(options: GenerationOptions) -> dict[str, Any]:
    tiled = options.tiled
    if tiled is None:
        return {"tiled": False}
    form = {"tiled": True, **{f"tiled_{name}": getattr(tiled, name) for name in ("scale", "method", "overlap")}}
    return {**form, "tile_width": options.width, "tile_height": options.height}


def for_number(options: GenerationOptions) -> GenerationOptions:
    """Reduces a request to the recalled picture with its own seed, since the form has no field for a batch position."""
    if options.only is None or options.seed is None:
        return options
    return replace(options, seed=options.seed + options.only, number=1, batch=1, only=None)
