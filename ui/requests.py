"""Converts the form to GenerationOptions and back; recalling a picture sets every field, so no old values remain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError, quoted
from modules.core.sizes import Sides, extended_size
from modules.gallery.inputs import keep_drawing, keep_file
from modules.generation.option_table import Option
from modules.generation.options import (
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
    TiledOptions,
    default_of,
)
from ui.fields import (
    CONTROL_SLOTS,
    IMAGE_MODE,
    LORA_SLOTS,
    OPTIONS,
    OUTPAINT,
    TEXT_FIELDS,
)

Values = Mapping[str, Any]
OF_STABLE_FAST = ("stable_fast_precision", "stable_fast_skip")


class PlaceError(OptionsError):
    """A mistake in one part of the form; `place` names the message beside that part."""

    def __init__(self, text: str, place: str) -> None:
        super().__init__(text)
        self.place = place


def build_options(values: Values, inputs: Path) -> GenerationOptions:
    """Builds the request and saves the form's pictures in `inputs`. Raises OptionsError with a readable sentence."""
    init, size = read_init(values, inputs) if values["mode"] == IMAGE_MODE else (None, None)
    tiled = read_tiled(values, init)
    if tiled is not None:
        size = optional_whole(values, "tile_width", "Tile width"), optional_whole(values, "tile_height", "Tile height")
    width, height = size or (whole(values, "width", "Width"), whole(values, "height", "Height"))
    return GenerationOptions(
        prompt=values["prompt"] or "",
        negative_prompt=values["negative_prompt"] or "",
        styles=tuple(values["styles"] or ()),
        **read_all_plain(values),
        width=width,
        height=height,
        seed=read_seed(values["seed"]),
        text_encoders=tuple(values[name] for name in TEXT_FIELDS if values[name]),
        refiner=values["refiner"] or None,
        refiner_start=number(values, "refiner_start", "Refiner start") if values["refiner"] else None,
        loras=read_loras(values),
        hires=read_hires(values),
        controls=read_controls(values, inputs),
        init=init,
        tiled=tiled,
        stable_fast=values["level"] if values["stable_fast"] else "off",
    )


def read_all_plain(values: Values) -> dict[str, Any]:
    """Returns the plain options. Those of Stable-Fast hold while it is on."""
    plain = {name: read_plain(values, option) for name, option in OPTIONS.items()}
    resting = {} if values["stable_fast"] else {name: default_of(name) for name in OF_STABLE_FAST}
    return plain | resting


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
        raise OptionsError(
            f"The seed {quoted(text)} is not a whole number of up to 19 digits: leave it empty for a random one."
        )
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
        words = f"ControlNet {slot} ({quoted(name)}) has no picture: drop one, or choose no ControlNet."
        raise PlaceError(words, "control_message")
    start, end = (number(values, f"control_{slot}_{edge}", f"ControlNet {edge}") for edge in ("start", "end"))
    if start > end:
        words = f"ControlNet {slot} would end ({end:g}) before it starts ({start:g}): swap the two."
        raise PlaceError(words, "control_message")
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


def with_kept_pictures(values: Values, options: GenerationOptions) -> dict[str, Any]:
    """Returns the form with the kept copies of its control pictures, which outlast the uploads."""
    slots = [slot for slot in range(1, CONTROL_SLOTS + 1) if values[f"control_{slot}"]]
    unused = {f"control_{slot}_image": None for slot in range(1, CONTROL_SLOTS + 1)}
    kept = {f"control_{slot}_image": str(control.image) for slot, control in zip(slots, options.controls, strict=True)}
    return {**values, **unused, **kept}


def read_init(values: Values, inputs: Path) -> tuple[InitImage, tuple[int, int] | None]:
    """Reads the picture and its painted mask; the size is the picture's own unless the form's size is requested."""
    drawing = values["editor"] or {}
    if drawing.get("background") is None:
        words = "Image to image needs a picture: drop one into the field, or switch to Text to image."
        raise PlaceError(words, "init_message")
    kept = keep_drawing(drawing["background"], drawing.get("layers") or [], inputs, values["mask_file"])
    sides = Sides(*(whole(values, name, name.replace("_", " ").capitalize()) for name in OUTPAINT))
    if any(sides) and kept.mask is not None:
        raise PlaceError("Outpainting makes a mask of its own: clear the mask, or set the sides to 0.", "init_message")
    init = InitImage(
        image=kept.image,
        mask=kept.mask,
        denoise=number(values, "denoise", "Denoise"),
        resize=values["resize"],
        mask_blur=whole(values, "mask_blur", "Mask blur"),
        mask_content=values["mask_content"],
        mask_invert=bool(values["mask_invert"]),
        only_masked=bool(values["only_masked"]),
        mask_padding=whole(values, "mask_padding", "Mask padding"),
        mask_soft=bool(values["mask_soft"]),
        each_part=bool(values["each_part"]),
        outpaint=sides,
        outpaint_seam=whole(values, "outpaint_seam", "Seam"),
    )
    size = extended_size(drawing["background"].size, sides) if any(sides) else kept.size
    return init, size if values["keep_size"] else None


def read_tiled(values: Values, init: InitImage | None) -> TiledOptions | None:
    """Reads the tiled upscale of image to image. The request's size is then that of a tile."""
    if init is None or not values["tiled"]:
        return None
    if init.mask is not None:
        words = "The tiled upscale repaints the whole picture: clear what is painted, or switch the tiled upscale off."
        raise PlaceError(words, "init_message")
    scale, overlap = number(values, "tiled_scale", "Tiled upscale"), whole(values, "tiled_overlap", "Overlap")
    return TiledOptions(scale=scale, method=values["tiled_method"], overlap=overlap)
