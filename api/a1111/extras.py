"""A1111's extras: pictures enlarged without a prompt."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from api.a1111.hires import method_of
from api.a1111.refusals import NOTHING, Unsupported, check_all
from api.desk import Desk
from api.dialect import json_fields
from api.fields import Fields, an_object, checked
from api.pictures import as_base64, keep_source
from modules.core.errors import OptionsError
from modules.gallery.output import OutputFolder
from modules.tasks.task import Enlarge

UNSUPPORTED = (
    Unsupported(name="gfpgan_visibility", neutral=(0,)),
    Unsupported(name="codeformer_visibility", neutral=(0,)),
    Unsupported(name="upscaler_2", neutral=NOTHING),
)
BY_FACTOR, TO_SIZE = 0, 1  # resize_mode


async def single_image(desk: Desk, request: Request) -> dict[str, Any]:
    asked = await json_fields(request)
    images = await enlarged(desk, asked, [asked.data("image")], request)
    return {"html_info": "", "image": images[0] if images else None}  # none if it was interrupted


async def batch_images(desk: Desk, request: Request) -> dict[str, Any]:
    asked = await json_fields(request)
    entries = [Fields(checked(an_object, entry, "imageList")) for entry in asked.list("imageList")]
    return {"html_info": "", "images": await enlarged(desk, asked, [entry.data("data") for entry in entries], request)}


async def enlarged(desk: Desk, asked: Fields, pictures: list[str], request: Request) -> list[str]:
    """Enlarges pictures in base64. All are read before the first is enlarged."""
    with desk.tray(keep=False) as tray:
        task = await asyncio.to_thread(read_task, asked, pictures, tray)
        queued = await desk.run(task, tray, request.is_disconnected)
        return [as_base64(path) for path in queued.pictures]


def read_task(asked: Fields, pictures: list[str], tray: OutputFolder) -> Enlarge:
    check_all(UNSUPPORTED, asked.values)
    mode = asked.whole("resize_mode", BY_FACTOR)
    if mode not in (BY_FACTOR, TO_SIZE):
        raise OptionsError(f"resize_mode {mode} is unknown: choose 0 (by a factor) or 1 (to a size).")
    images = tuple(keep_source(picture, "image", tray) for picture in pictures)
    method = method_of(asked.text("upscaler_1") or "None")
    if mode == BY_FACTOR:
        return Enlarge(images=images, method=method, scale=asked.number("upscaling_resize", 2.0))
    return Enlarge(
        images=images,
        method=method,
        width=asked.whole("upscaling_resize_w", 512),
        height=asked.whole("upscaling_resize_h", 512),
        crop=asked.flag("upscaling_crop", default=True),
    )
