"""The table of OpenAI's endpoints."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response

from api.desk import Desk
from api.dialect import Dialect, Endpoint, as_json, json_fields
from api.errors import Refused
from api.openai_images import answers
from api.openai_images.asked import Sending, read_options, read_sending
from api.openai_images.edits import form_fields, keep_edit, read_files, read_form
from api.openai_images.stream import streamed
from modules.core.errors import quoted
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.tasks.task import MakePictures

ROOT = "/v1/"
DEFAULT_STRENGTH = 0.75  # how much an opaque picture changes without a mask


async def list_models(desk: Desk, request: Request) -> Response:
    return as_json(await asyncio.to_thread(answers.models, desk.folders))


async def show_model(desk: Desk, request: Request) -> Response:
    wanted = request.path_params["model"]
    rows = (await asyncio.to_thread(answers.models, desk.folders))["data"]
    alike = [row for row in rows if PurePath(row["id"]).with_suffix("").as_posix() == wanted]
    found = [row for row in rows if row["id"] == wanted] or alike
    if len(found) == 1:
        return as_json(found[0])
    raise Refused(404, f"There is no model {quoted(wanted)} here: GET {ROOT}models lists what there is.")


async def generate(desk: Desk, request: Request) -> Response:
    asked = await json_fields(request)
    sending = read_sending(asked)
    options = await asyncio.to_thread(read_options, desk, asked, None, None)
    with ExitStack() as things:
        tray = things.enter_context(desk.tray(keep=False))
        return await make("image_generation", desk, request, options, sending, tray, things)


async def edit(desk: Desk, request: Request) -> Response:
    form = await read_form(request)
    try:
        asked, (image, mask) = form_fields(form), await read_files(form)
    finally:
        await form.close()
    sending, strength = read_sending(asked), asked.number("strength", DEFAULT_STRENGTH)
    with ExitStack() as things:
        tray = things.enter_context(desk.tray(keep=False))
        init, size = await asyncio.to_thread(keep_edit, image, mask, strength, tray.folder)
        options = await asyncio.to_thread(read_options, desk, asked, init, size)
        return await make("image_edit", desk, request, options, sending, tray, things)


async def make(
    kind: str,
    desk: Desk,
    request: Request,
    options: GenerationOptions,
    sending: Sending,
    tray: OutputFolder,
    things: ExitStack,
) -> Response:
    """Runs the request; answers at once with a stream, or with the pictures when all are finished."""
    queued = await desk.submit(MakePictures(options=options), tray)
    if sending.stream:
        return streamed(kind, desk, queued, options, sending, things.pop_all())
    await desk.finish(queued, request.is_disconnected)
    return as_json(await asyncio.to_thread(answers.pictures, queued.pictures, sending.form))


DIALECT = Dialect(
    prefixes=(ROOT,),
    endpoints=(
        Endpoint(method="GET", path=f"{ROOT}models", answer=list_models),
        Endpoint(method="GET", path=f"{ROOT}models/{{model:path}}", answer=show_model),
        Endpoint(method="POST", path=f"{ROOT}images/generations", answer=generate),
        Endpoint(method="POST", path=f"{ROOT}images/edits", answer=edit),
    ),
    refuse=answers.refuse,
    words=answers.WORDS,
)
