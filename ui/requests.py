"""Converts the form to GenerationOptions and back; recalling a picture sets every field, so no old values remain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError, quoted
from modules.gallery.inputs import keep_drawing, keep_file
from modules.generation.option_table import Option
from modules.generation.options import (
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
    default_of,
)
from ui.fields import AUTOMATIC, CONTROL_SLOTS, IMAGE_MODE, LORA_SLOTS, OPTIONS, TEXT_FIELDS, TEXT_MODE

Values = Mapping[str, Any]
HIRES_PLAIN = ("scale", "width", "height", "method", "steps", "denoise", "cfg")
FIELD_STRENGTH = 2.0  # the sliders go from -2 to 2; values beyond that go into the prompt


def build_options(values: Values, inputs: Path) -> GenerationOptions:
    """Builds the request and saves the form's pictures in `inputs`. Raises OptionsError with a readable sentence."""
    init, size = read_init(values, inputs) if values["mode"] == IMAGE_MODE else (None, None)
    width, height = size or (whole(values, "width", "Width"), whole(values, "height", "Height"))
    return GenerationOptions(
        prompt=values["prompt"] or "",
        negative_prompt=values["negative_prompt"] or "",
        **{name: read_plain(values, option) for name, option in OPTIONS.items()},
        width=width,
        height=height,
        seed=read_seed(values["seed"]),
        text_encoders=tuple(values[name] for name in TEXT_FIELDS if values[name]),
        loras=read_loras(values),
        hires=read_hires(values),
        controls=read_controls(values, inputs),
        init=init,
        stable_fast=values["level"] if values["stable_fast"] else "off",
    )


def read_plain(values: Values, option: Option) -> Any:
    """Returns the value of the option's field; an empty list or text becomes None if that is the option's default."""
    if option.kind == "whole":
        return whole(values, option.name, option.label)
    if option.kind == "number":
        return number(values, option.name, option.label)
    return values[option.name] or (None if default_of(option.name) is None else "")


def number(values: Values, name: str, label: str) -> float:
    if values[name] is None:
        raise OptionsError(f"{label} is empty: enter a number.")
    return float(values[name])


def whole(values: Values, name: str, label: str) -> int:
    value = number(values, name, label)
    if not value.is_integer():
        raise OptionsError(f"{label} {value:g} must be a whole number.")
    return int(value)


def optional_whole(values: Values, name: str, label: str) -> int | None:
    return None if values[name] is None else whole(values, name, label)


def read_seed(text: str | None) -> int | None:
    """Reads the seed; empty or -1 means random. The field is text, since browsers only handle integers up to 2^53."""
    text = (text or "").strip()
    if text in ("", "-1"):
        return None
    if not re.fullmatch("[0-9]{1,19}", text):
        raise OptionsError(f"The seed {quoted(text)} is not a whole number: leave it empty for a random one.")
    return int(text)


def read_loras(values: Values) -> tuple[LoraChoice, ...]:
    slots = range(1, LORA_SLOTS + 1)
    return tuple(
        LoraChoice(
            name=values[f"lora_{slot}"],
            strength=number(values, f"lora_{slot}_strength", "LoRA strength"),
            text_strength=values[f"lora_{slot}_text"],
        )
        for slot in slots
        if values[f"lora_{slot}"]
    )


def read_hires(values: Values) -> HiresOptions | None:
    if not values["hires"]:
        return None
    return HiresOptions(
        scale=number(values, "hires_scale", "HiresFix scale"),
        method=values["hires_method"],
        steps=whole(values, "hires_steps", "HiresFix steps"),
        denoise=number(values, "hires_denoise", "HiresFix denoise"),
        cfg=values["hires_cfg"],
        sampler=values["hires_sampler"] or None,
        scheduler=values["hires_scheduler"] or None,
        width=optional_whole(values, "hires_width", "HiresFix width"),
        height=optional_whole(values, "hires_height", "HiresFix height"),
        keep_first_pass=bool(values["hires_keep"]),
    )


def read_controls(values: Values, inputs: Path) -> tuple[ControlChoice, ...]:
    return tuple(
        read_control(values, slot, inputs) for slot in range(1, CONTROL_SLOTS + 1) if values[f"control_{slot}"]
    )


def read_control(values: Values, slot: int, inputs: Path) -> ControlChoice:
    name, image = values[f"control_{slot}"], values[f"control_{slot}_image"]
    if not image:
        raise OptionsError(f"ControlNet {slot} ({quoted(name)}) has no picture: drop one, or choose no ControlNet.")
    start, end = (number(values, f"control_{slot}_{edge}", f"ControlNet {edge}") for edge in ("start", "end"))
    if start > end:
        raise OptionsError(f"ControlNet {slot} would end ({end:g}) before it starts ({start:g}): swap the two.")
    return ControlChoice(
        name=name,
        image=keep_file(Path(image), inputs),
        strength=number(values, f"control_{slot}_strength", "ControlNet strength"),
        start=start,
        end=end,
        mode=values[f"control_{slot}_mode"],
        preprocessor=values[f"control_{slot}_preprocessor"],
        kind=values[f"control_{slot}_kind"] or None,
    )


def read_init(values: Values, inputs: Path) -> tuple[InitImage, tuple[int, int] | None]:
    """Reads the picture and its painted mask; the size is the picture's own unless the form's size is requested."""
    drawing = values["editor"] or {}
    if drawing.get("background") is None:
        raise OptionsError("Image to image needs a picture: drop one into the field, or switch to Text to image.")
    kept = keep_drawing(drawing["background"], drawing.get("layers") or [], inputs)
    init = InitImage(
        image=kept.image,
        mask=kept.mask,
        denoise=number(values, "denoise", "Denoise"),
        resize=values["resize"],
        mask_blur=whole(values, "mask_blur", "Mask blur"),
        mask_content=values["mask_content"],
    )
    return init, kept.size if values["keep_size"] else None


def to_form(options: GenerationOptions, fresh: Values, lost: Sequence[Path] = ()) -> dict[str, Any]:
    """Returns all fields for a recalled request without its `lost` pictures; other fields are as in `fresh`."""
    loras, extra = fit_slots(options.loras)
    form = {
        **fresh,
        **{name: value for name in OPTIONS if (value := getattr(options, name)) is not None},
        "prompt": " ".join([options.prompt, *extra]).strip(),
        "negative_prompt": options.negative_prompt,
        "seed": "" if options.seed is None else str(options.seed),
        **dict(zip(TEXT_FIELDS, options.text_encoders, strict=False)),
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
    return form | hires_form(options.hires) | init_form(options.init, lost)


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
    """Restores the mask as a layer over the picture, as if newly painted."""
    if init is None:
        return {"mode": TEXT_MODE}
    form = {name: getattr(init, name) for name in ("denoise", "resize", "mask_blur", "mask_content")}
    mask = None if init.mask in lost else init.mask
    editor = None if init.image in lost else editor_value(init.image, mask)
    return {**form, "mode": IMAGE_MODE, "keep_size": False, "editor": editor}


def editor_value(image: Path, mask: Path | None = None) -> dict[str, Any]:
    """Returns a value for the mask editor."""
    from modules.gallery.inputs import mask_layer

    return {"background": str(image), "layers": [] if mask is None else [mask_layer(mask)], "composite": None}


def for_number(options: GenerationOptions) -> GenerationOptions:
    """Reduces a request to the recalled picture with its own seed, since the form has no field for a batch position."""
    if options.only is None or options.seed is None:
        return options
    return replace(options, seed=options.seed + options.only, number=1, batch=1, only=None)
