"""Reads an edit: a multipart form with a picture and a mask, whose transparent part is repainted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.fields import Fields
from modules.core.errors import OptionsError
from modules.core.sizes import MAX_SIZE, MIN_SIZE, SIZE_STEP
from modules.core.typed import Unreadable, parse_json
from modules.gallery.inputs import keep_input
from modules.generation.options import InitImage
from modules.images.modes import to_rgb
from modules.images.open import open_image

IMAGES = ("image", "image[]")
NOT_TEXT = ("n", "seed", "steps", "cfg_scale", "output_compression", "partial_images", "stream", "strength")


async def read_form(request: Request) -> FormData:
    """Raises OptionsError for a body that is no form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise OptionsError("An edit is sent as multipart/form-data, with the picture in the field image.")
    try:
        return await request.form()
    except HTTPException as error:
        raise OptionsError(f"The form cannot be read: {error.detail}") from error


def form_fields(form: FormData) -> Fields:
    """Returns the fields that are no files. A form holds only text, so numbers are read from it."""
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    return Fields({name: number_in(value) if name in NOT_TEXT else value for name, value in texts.items()})


def number_in(text: str) -> Any:
    """Returns the number or truth value that is written here, or the text itself for others to complain about."""
    try:
        return parse_json(text.strip().lower())
    except Unreadable:
        return text


async def read_files(form: FormData) -> tuple[bytes, bytes | None]:
    """Returns the picture's bytes and the mask's. Raises OptionsError unless there is exactly one picture."""
    given = [item for name in IMAGES for item in form.getlist(name) if isinstance(item, UploadFile)]
    if len(given) != 1:
        raise OptionsError(f"The form holds {len(given)} pictures in the field image: send exactly one.")
    mask = form.get("mask")
    if mask is not None and not isinstance(mask, UploadFile):
        raise OptionsError("mask is no file: send a PNG whose transparent part is to be repainted.")
    return await given[0].read(), None if mask is None else await mask.read()


def keep_edit(image: bytes, mask: bytes | None, strength: float, folder: Path) -> tuple[InitImage, tuple[int, int]]:
    """Keeps the picture and its mask as files; returns the start, and the picture's size in steps of 8 pixels.

    Without a mask the transparent part of the picture itself counts; an opaque picture is repainted as a whole, with
    `strength` as its denoise.
    """
    picture = open_image(io.BytesIO(image), "image")
    area = open_image(io.BytesIO(mask), "mask") if mask is not None else picture
    hole = transparent(area)
    if mask is not None and hole is None:
        raise OptionsError("mask has no transparent part, so there is nothing to repaint: make a part transparent.")
    if mask is not None and area.size != picture.size:
        raise OptionsError(
            f"mask has {area.width} x {area.height} pixels and image {picture.width} x {picture.height}: "
            "give them the same size."
        )
    width, height = (min(max(MIN_SIZE, round(side / SIZE_STEP) * SIZE_STEP), MAX_SIZE) for side in picture.size)
    init = InitImage(
        image=keep_input(to_rgb(picture), folder),
        mask=None if hole is None else keep_input(hole, folder),
        denoise=strength if hole is None else 1.0,
    )
    return init, (width, height)


def transparent(image: Image.Image) -> Image.Image | None:
    """Returns a mask that is white where the picture is transparent; None if it is opaque."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    hole = ImageOps.invert(image.convert("RGBA").getchannel("A"))
    return hole if hole.getextrema()[1] else None
