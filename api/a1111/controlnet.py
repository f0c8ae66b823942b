"""Reads the units of A1111's ControlNet extension, and draws what they would see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.requests import Request

from api.a1111.names import NO_OTHER, found_name
from api.a1111.refusals import Unsupported, check_all
from api.desk import Desk
from api.dialect import json_fields
from api.fields import Fields, an_object, checked
from api.pictures import as_base64, keep_picture
from modules.core.errors import OptionsError, quoted
from modules.gallery.inputs import keep_input
from modules.gallery.output import OutputFolder
from modules.generation.options import CONTROL_MODES, ControlChoice
from modules.tasks.task import DrawHint, check_sides

SCRIPT = "controlnet"
# The extension's numbers and words for its control modes, in the order of ours.
MODES = ("Balanced", "My prompt is more important", "ControlNet is more important")
RESIZE_MODES = ("Just Resize", "Crop and Resize", "Resize and Fill")
RESIZE = ("stretch", "crop", "fill")
UNSUPPORTED = (
    Unsupported(name="mask", neutral=("",)),
    Unsupported(name="hr_option", neutral=("Both", "HiResFixOption.BOTH")),
    Unsupported(name="effective_region_mask", neutral=("",)),
)


def read_controls(
    desk: Desk, asked: Fields, tray: OutputFolder, size: tuple[int, int], default: Path | None = None
) -> tuple[ControlChoice, ...]:
    """Reads the units in alwayson_scripts, for pictures of this size. A unit without an image takes `default`.

    Raises OptionsError for any other script that is switched on.
    """
    units: list[Any] = []
    for name, script in asked.object("alwayson_scripts").values.items():
        given = Fields(checked(an_object, script, name)).list("args")
        if name.casefold() == SCRIPT:
            units += given
        elif any(given):
            raise OptionsError(f"The script {quoted(name)} is not supported here; leave it out.")
    read = [Fields(checked(an_object, unit, "ControlNet unit")) for unit in units]
    return tuple(read_unit(desk, unit, tray, size, default) for unit in read if unit.flag("enabled", default=True))


def read_unit(
    desk: Desk, unit: Fields, tray: OutputFolder, size: tuple[int, int], default: Path | None
) -> ControlChoice:
    check_all(UNSUPPORTED, unit.values)
    name = found_name(desk.folders, "controlnet", unit.text("model"))
    if name is None:
        raise OptionsError("A ControlNet unit names no model: choose one of /controlnet/model_list.")
    given = picture_of(unit)
    image = keep_picture(given, "ControlNet image", tray) if given else default
    if image is None:
        raise OptionsError(f"The ControlNet unit of {quoted(name)} has no image: send one as base64.")
    return ControlChoice(
        name=name,
        image=fitted(image, size, resize_of(unit.values.get("resize_mode")), tray),
        strength=unit.number("weight", 1.0),
        start=unit.number("guidance_start", 0.0),
        end=unit.number("guidance_end", 1.0),
        mode=mode_of(unit.values.get("control_mode")),
        preprocessor=preprocessor_of(unit.text("module")),
    )


def picture_of(unit: Fields) -> str:
    """Returns the unit's picture; the extension's versions put it in different places."""
    value = unit.values.get("image") or unit.values.get("input_image")
    if isinstance(value, Mapping):
        value = value.get("image")
    return Fields({"ControlNet image": value}).data("ControlNet image")


def mode_of(value: object) -> str:
    return CONTROL_MODES[place_of("control_mode", value, MODES, 0)]


def resize_of(value: object) -> str:
    return RESIZE[place_of("resize_mode", value, RESIZE_MODES, 1)]


def place_of(name: str, value: object, words: Sequence[str], default: int) -> int:
    """Returns the place of a value that may be written as its number or in words. Raises OptionsError."""
    if value is None:
        return default
    for number, word in enumerate(words):
        if value == word or (type(value) is int and value == number):
            return number
    raise OptionsError(f"{name} {quoted(value)} is unknown: choose one of {', '.join(words)}.")


def fitted(path: Path, size: tuple[int, int], resize: str, tray: OutputFolder) -> Path:
    """Returns the picture in the aspect ratio of `size`. Cropping it is left to the engine."""
    if resize == "crop":
        return path
    from modules.images.resize import resize_image  # imports torch

    with Image.open(path) as image:
        factor = max(image.width / max(size[0], 1), image.height / max(size[1], 1))
        width, height = (max(1, round(side * factor)) for side in size)
        check_sides(width, height)
        return keep_input(resize_image(image.convert("RGB"), width, height, resize), tray.folder)


def preprocessor_of(module: str) -> str:
    """Returns our preprocessor for the extension's name: `softedge_hed` is `softedge`, "None" is `none`."""
    folded = module.casefold()
    return "none" if folded in NO_OTHER else re.split(r"[\s_(]", folded, maxsplit=1)[0]


async def detect(desk: Desk, request: Request) -> dict[str, Any]:
    """Answers the hints of pictures, each as large as controlnet_processor_res on its shorter side."""
    asked = await json_fields(request)
    with desk.tray(keep=False) as tray:
        tasks = await asyncio.to_thread(read_detect, asked, tray)
        done = [await desk.run(task, tray, request.is_disconnected) for task in tasks]
        return {"images": [as_base64(path) for queued in done for path in queued.pictures], "info": "Success"}


def read_detect(asked: Fields, tray: OutputFolder) -> list[DrawHint]:
    pictures = asked.datas("controlnet_input_images") or asked.datas("controlnet_images")
    if not pictures:
        raise OptionsError("controlnet_input_images is empty: send pictures as base64.")
    module = preprocessor_of(asked.text("controlnet_module"))
    return [hint_of(asked, keep_picture(picture, "ControlNet image", tray), module) for picture in pictures]


def hint_of(asked: Fields, path: Path, module: str) -> DrawHint:
    with Image.open(path) as image:
        shorter = asked.whole("controlnet_processor_res", 512)
        width, height = (round(side * shorter / min(image.size)) for side in image.size)
    return DrawHint(image=path, width=width, height=height, preprocessor=module)
