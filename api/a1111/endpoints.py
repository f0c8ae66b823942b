"""The table of A1111's endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.a1111 import controlnet, extras, lists, options
from api.a1111.answers import refuse
from api.a1111.generate import generate
from api.a1111.image_to_image import read_image_to_image
from api.a1111.png_info import png_info
from api.a1111.progress import progress
from api.a1111.text_to_image import read_text_to_image
from api.desk import Desk
from api.dialect import Dialect, Endpoint, as_json, json_fields
from api.errors import Refused
from api.fields import Fields

Show = Callable[[Desk], Any]
Do = Callable[[Desk, Fields], Any]
Make = Callable[[Desk, Request], Awaitable[Any]]

ROOT, CONTROLNET = "/sdapi/v1/", "/controlnet/"
FALSE = ("", "0", "false")


def stop(desk: Desk, asked: Fields) -> dict[str, Any]:
    """Answers interrupt."""
    desk.stop()
    return {}


def skip(desk: Desk, asked: Fields) -> dict[str, Any]:
    """Answers skip. Raises Refused if something runs that cannot leave out a part, such as a task on a cluster."""
    if not desk.skip():
        raise Refused(501, "No picture of this task can be skipped here: interrupt stops the whole task.")
    return {}


def nothing_to_do(desk: Desk, asked: Fields) -> None:
    """Answers the refresh calls: each list looks into its folders anew."""


def interrogate(desk: Desk, asked: Fields) -> None:
    raise Refused(501, "Describing a picture is not supported here: there is no model for it.")


async def show_progress(desk: Desk, request: Request) -> Any:
    skip = request.query_params.get("skip_current_image", "")
    return progress(desk, with_picture=skip.casefold() in FALSE)


SHOWN: dict[str, Show] = {
    f"{ROOT}options": options.settings,
    f"{ROOT}sd-models": lists.checkpoints,
    f"{ROOT}sd-vae": lists.vaes,
    f"{ROOT}samplers": lists.samplers,
    f"{ROOT}schedulers": lists.schedulers,
    f"{ROOT}upscalers": lists.upscalers,
    f"{ROOT}latent-upscale-modes": lists.latent_upscale_modes,
    f"{ROOT}loras": lists.loras,
    f"{ROOT}embeddings": lists.embeddings,
    f"{ROOT}prompt-styles": lists.styles,
    f"{ROOT}scripts": lists.scripts,
    f"{ROOT}cmd-flags": lists.cmd_flags,
    f"{ROOT}memory": lists.memory,
    f"{ROOT}hypernetworks": lists.none_of_these,
    f"{ROOT}face-restorers": lists.none_of_these,
    f"{ROOT}realesrgan-models": lists.none_of_these,
    f"{CONTROLNET}version": lists.controlnet_version,
    f"{CONTROLNET}model_list": lists.controlnet_models,
    f"{CONTROLNET}module_list": lists.controlnet_modules,
}
DONE: dict[str, Do] = {
    f"{ROOT}options": options.set_settings,
    f"{ROOT}interrupt": stop,
    f"{ROOT}skip": skip,
    f"{ROOT}png-info": png_info,
    f"{ROOT}interrogate": interrogate,
    f"{ROOT}refresh-checkpoints": nothing_to_do,
    f"{ROOT}refresh-loras": nothing_to_do,
}
MADE: dict[str, Make] = {
    f"{ROOT}txt2img": partial(generate, read_text_to_image),
    f"{ROOT}img2img": partial(generate, read_image_to_image),
    f"{ROOT}extra-single-image": extras.single_image,
    f"{ROOT}extra-batch-images": extras.batch_images,
    f"{CONTROLNET}detect": controlnet.detect,
}

WORDS = {
    "--mask FILE": "mask",
    "--img2img FILE": "init_images",
    "--list samplers": f"GET {ROOT}samplers",
    "--list schedulers": f"GET {ROOT}schedulers",
    "--hires-method": "hr_upscaler",
    "--checkpoint": "sd_model_checkpoint in override_settings",
    "--vae": "sd_vae in override_settings",
    "--cfg": "cfg_scale",
    "--sampler": "sampler_name",
}


async def show(what: Show, desk: Desk, request: Request) -> Response:
    return as_json(await asyncio.to_thread(what, desk))


async def do(what: Do, desk: Desk, request: Request) -> Response:
    return as_json(await asyncio.to_thread(what, desk, await json_fields(request)))


async def make(what: Make, desk: Desk, request: Request) -> Response:
    return await asyncio.to_thread(as_json, await what(desk, request))


DIALECT = Dialect(
    prefixes=(ROOT, CONTROLNET),
    endpoints=(
        *(Endpoint(method="GET", path=path, answer=partial(show, what)) for path, what in SHOWN.items()),
        *(Endpoint(method="POST", path=path, answer=partial(do, what)) for path, what in DONE.items()),
        *(Endpoint(method="POST", path=path, answer=partial(make, what)) for path, what in MADE.items()),
        Endpoint(method="GET", path=f"{ROOT}progress", answer=partial(make, show_progress)),
    ),
    refuse=refuse,
    words=WORDS,
)
