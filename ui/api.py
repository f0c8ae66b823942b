"""Defines the named API endpoints: typed functions that make the same requests as the form (see docs/ui.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api as add_endpoint
from gradio.utils import get_upload_folder

from modules.core.errors import LightDiffusionError, OptionsError, quoted
from modules.core.typed import Unreadable, text
from modules.gallery.uploads import open_drawing, permitted
from modules.generation.options import default_of
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import MakePictures
from ui.events.handlers import Handlers
from ui.fields import CONTROL_SLOTS, IMAGE_MODE, OWN_IMAGES, SCHEDULER, image_defaults
from ui.requests import build_options
from ui.settings import fits

CONTROL_IMAGES = tuple(f"control_{slot}_image" for slot in range(1, CONTROL_SLOTS + 1))
NOT_FIELDS = (*OWN_IMAGES, "mode")  # each endpoint sets the mode, and the pictures are arguments
FILE_KEYS = frozenset(FileData.model_fields)  # the keys of an uploaded file
POLL_SECONDS = 0.1


class Api:
    """The API; each public method is an endpoint with the same name."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    async def text_to_image(
        self,
        prompt: str,
        negative_prompt: str = "",
        width: int | None = None,
        height: int | None = None,
        number: int = 1,
        batch: int = 1,
        steps: int = default_of("steps"),
        cfg: float = default_of("cfg"),
        sampler: str = default_of("sampler"),
        scheduler: str = SCHEDULER,
        seed: str | int = "",
        checkpoint: str = "",
        stable_fast: bool = False,
        other: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Makes pictures; returns {"images": [paths], "seed", "stable_fast"}.

        `other` sets any other form field by name. Errors have the same message as on the page.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "other")}
        return await self._make(given, other)

    async def image_to_image(
        self,
        image: str | dict[str, Any],
        prompt: str = "",
        mask: str | dict[str, Any] | None = None,
        denoise: float = image_defaults()["denoise"],
        negative_prompt: str = "",
        width: int | None = None,
        height: int | None = None,
        number: int = 1,
        batch: int = 1,
        steps: int = default_of("steps"),
        cfg: float = default_of("cfg"),
        sampler: str = default_of("sampler"),
        scheduler: str = SCHEDULER,
        seed: str | int = "",
        checkpoint: str = "",
        stable_fast: bool = False,
        other: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Works like `text_to_image`, but from an uploaded picture (or the path of one in the output folder).

        With a mask, only its white part is repainted. Without width and height, the result has the picture's size.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "other", "image", "mask")}
        return await self._make({**given, "keep_size": not (width or height)}, other, {"image": image, "mask": mask})

    def queue(self) -> list[dict[str, Any]]:
        """Lists the running and waiting requests in order."""
        return [{"id": queued.id, "state": queued.state} for queued in self.handlers.queue.unfinished()]

    def cancel(self, id: str) -> bool:
        """Stops a running request within one step, a waiting one at once; returns false for an unknown one."""
        return self.handlers.queue.cancel(as_text("id", id))

    def models(self, kind: str = "checkpoints") -> list[str]:
        """Lists model files: checkpoints, vae, text_encoders, loras, embeddings, controlnet or upscalers."""
        try:
            return self.handlers.folders.list(as_text("kind", kind))
        except LightDiffusionError as error:
            raise told(error) from error

    def defaults(self) -> dict[str, Any]:
        """Returns all form fields with their defaults."""
        return {name: value for name, value in self.handlers.fresh().items() if name not in NOT_FIELDS}

    async def _make(
        self, given: dict[str, Any], other: dict[str, Any] | None, drawing: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Waits without blocking a thread, so that the page still responds while any number of programs wait."""
        try:
            queued = await asyncio.to_thread(self._submit, given, {} if other is None else other, drawing)
        except LightDiffusionError as error:
            raise told(error) from error
        while not queued.finished:
            await asyncio.sleep(POLL_SECONDS)
        if queued.state != "done":
            raise gr.Error(queued.error, print_exception=False)
        return answer(queued)

    def _submit(self, given: dict[str, Any], other: dict[str, Any], drawing: Mapping[str, Any] | None) -> QueuedTask:
        handlers = self.handlers
        fresh = handlers.fresh()
        if type(given["seed"]) is int:
            given["seed"] = str(given["seed"])
        given = checked({name: value for name, value in given.items() if value is not None}, fresh)
        given["checkpoint"] = given.get("checkpoint") or fresh["checkpoint"]
        values = {**fresh, **handlers.native_size(given["checkpoint"]), **given, **checked(other, fresh)}
        for name in CONTROL_IMAGES:
            values[name] = self._file(name, values[name])
        if drawing is not None:
            image, mask = (self._file(name, drawing[name]) for name in ("image", "mask"))
            if image is None:
                raise OptionsError("Image to image needs a picture: upload one, with handle_file in Python.")
            drawing = {**open_drawing(image, mask), "layers": []}  # paint has no grey, and the mask's file may have
            values |= {"mode": IMAGE_MODE, "editor": drawing, "mask_file": mask}
        return handlers.queue.submit(MakePictures(options=build_options(values, handlers.output.folder)))

    def _file(self, name: str, given: Any) -> Path | None:
        """Reads an upload from `handle_file`, or a path in the output folder. Raises an error for anything else."""
        if given in (None, ""):
            return None
        path = given.get("path") if isinstance(given, dict) and given.keys() <= FILE_KEYS else given
        if not isinstance(path, str) or not path or "://" in path:
            raise OptionsError(f"{name} is not an uploaded picture: upload it first, with handle_file in Python.")
        return permitted(Path(path), (Path(get_upload_folder()), self.handlers.output.folder))


def as_text(name: str, value: object) -> str:
    """Checks that an argument is a string, since gradio passes on whatever it receives. Raises gr.Error."""
    try:
        return text(value, name)
    except Unreadable as error:
        raise gr.Error(f"{error}.", print_exception=False) from error


def checked(values: object, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Raises OptionsError for an unknown field or a value of the wrong type."""
    if not isinstance(values, Mapping):
        raise OptionsError(f"other: {quoted(values)} is not an object of fields and values.")
    unknown = sorted(name for name in values if name not in fresh or name in NOT_FIELDS)
    if unknown:
        raise OptionsError(f"There is no field called {quoted(', '.join(unknown))}; /defaults lists them.")
    for name, value in values.items():
        if name not in CONTROL_IMAGES and not fits(value, fresh[name]):
            raise OptionsError(f"{name} {quoted(value)} is of the wrong kind: the default is {fresh[name]!r}.")
    return dict(values)


def told(error: LightDiffusionError) -> gr.Error:
    return gr.Error(str(error), print_exception=False)


def answer(queued: QueuedTask) -> dict[str, Any]:
    return {"images": [str(path) for path in queued.pictures], "seed": queued.seed, "stable_fast": queued.note}


def add_endpoints(handlers: Handlers) -> None:
    """Adds the endpoints to the open Blocks."""
    api = Api(handlers)
    for endpoint in (api.text_to_image, api.image_to_image, api.queue, api.cancel, api.models, api.defaults):
        add_endpoint(endpoint, api_name=endpoint.__name__, concurrency_limit=None)
