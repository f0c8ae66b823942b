"""Masks one colour of the picture under Image to image, in a mask file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import ImageChops

from modules.core.colours import read_colour
from modules.core.errors import LightDiffusionError
from modules.gallery.inputs import given_mask, keep_input
from modules.generation.options import GenerationOptions
from modules.images.masks.colour import mask_of_colour
from modules.images.open import open_image
from ui.events.handlers import Update
from ui.events.wiring import Wiring
from ui.panels import render

INPUTS = ("editor", "mask_file", "mask_colour", "mask_tolerance")


def connect_masking(wiring: Wiring, output: Path) -> None:
    def answer(drawing: Mapping[str, Any] | None, before: str | None, colour: str, tolerance: float) -> Update:
        try:
            return mask_colour(drawing, before, colour, round(tolerance), output)
        except LightDiffusionError as error:
            return {"init_message": render.error_box(str(error))}

    wiring.on(wiring.parts["mask_by_colour"].click, answer, INPUTS, ("mask_file", "init_message"))


def with_mask_file(options: GenerationOptions, lost: Sequence[Path], output: Path) -> GenerationOptions:
    """Returns the same request with its mask by colour in a file, as the form has it, unless its pictures are lost."""
    init = options.init
    if init is None or init.mask_colour is None or {init.image, init.mask} & {*lost}:
        return options
    from modules.generation.image_to_image import open_mask

    mask = open_mask(init, open_image(init.image))
    return replace(options, init=replace(init, mask=mask and keep_input(mask, output), mask_colour=None))


def mask_colour(
    drawing: Mapping[str, Any] | None, before: str | None, colour: str, tolerance: int, output: Path
) -> Update:
    """Adds everything near this colour to the mask file. Raises OptionsError for an unusable colour or file."""
    background = (drawing or {}).get("background")
    if background is None:
        return {"init_message": render.error_box("There is no picture yet: drop one into the field.")}
    mask = mask_of_colour(background, read_colour(colour), tolerance)
    if mask.getbbox() is None:
        return {"init_message": render.note_box("Nothing in the picture is near this colour: raise the tolerance.")}
    if before:
        mask = ImageChops.lighter(mask, given_mask(Path(before), mask.size))
    return {"mask_file": str(keep_input(mask, output)), "init_message": ""}
