"""Answers txt2img: reads the request, runs it, and sends the pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from api.a1111.answers import made
from api.desk import Desk
from api.dialect import json_fields
from api.fields import Fields
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.tasks.task import MakePictures

Read = Callable[[Desk, Fields, OutputFolder], GenerationOptions]


async def generate(read: Read, desk: Desk, request: Request) -> dict[str, Any]:
    """Runs the request that `read` finds in the body. One that is interrupted has the pictures there are."""
    asked = await json_fields(request)
    keep = asked.flag("save_images")
    with desk.tray(keep=keep) as tray:
        options = await asyncio.to_thread(read, desk, asked, tray)
        queued = await desk.run(MakePictures(options=options), tray, None if keep else request.is_disconnected)
        return await asyncio.to_thread(made, queued, options, asked)
