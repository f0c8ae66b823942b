"""Handles the Extras tab: enlarges pictures without a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gradio as gr

from modules.core.errors import LightDiffusionError, OptionsError
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import Enlarge
from ui.events.handlers import Handlers, Update
from ui.events.wiring import Wiring
from ui.panels import render
from ui.panels.results.extras import BY, TO
from ui.panels.results.panels import EXTRAS

INPUTS = ("files", "method", "size", "scale", "width", "height", "crop")


class Extras:
    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def enlarge(
        self,
        files: list[str] | None,
        method: str,
        size: str,
        scale: float | None,
        width: int | None,
        height: int | None,
        crop: bool,  # noqa: FBT001  # Gradio passes the fields by position
    ) -> Iterator[Update]:
        handlers, message = self._handlers, "extras_message"
        try:
            if not files:
                raise OptionsError("There is no picture to enlarge: drop one or several into the field above.")
            images = tuple(map(Path, files))
            if size == BY:
                task = Enlarge(images=images, method=method, scale=scale or 0.0)
            else:
                task = Enlarge(images=images, method=method, width=width, height=height or 0, crop=crop)
            yield from handlers.run(task, show, message)
        except LightDiffusionError as error:
            yield handlers.refuse(error, message)

    def send(self, panel: str, path: str) -> Update:
        """Takes a finished picture into the tab, and shows the tab."""
        if not Path(path).is_file():
            return {f"{panel}_message": render.error_box(f"{Path(path).name} no longer exists.")}
        return {"extras_files": [path], "extras_message": "", "panels": gr.Tabs(selected=EXTRAS)}


def show(queued: QueuedTask) -> Update:
    """Shows the results so far; until there is one, earlier ones stay."""
    paths = [str(path) for path in queued.pictures if path.exists()]
    return {"extras_gallery": gr.Gallery(value=paths, visible=True)} if paths else {}


def show_size(size: str) -> Update:
    return {"extras_by": gr.Row(visible=size == BY), "extras_to": gr.Column(visible=size == TO)}


def connect_extras(wiring: Wiring, handlers: Handlers, running: tuple[str, ...]) -> None:
    """Connects the tab; `running` are the components that follow a task."""
    parts, extras = wiring.parts, Extras(handlers)
    inputs = tuple(f"extras_{name}" for name in INPUTS)
    outputs = (*running, "compare_preview", "extras_gallery")
    wiring.on_start("extras_run", extras.enlarge, inputs, outputs)
    wiring.on(parts["extras_files"].upload, lambda: {"extras_message": ""}, (), ("extras_message",), queue=False)
    wiring.on(parts["extras_size"].input, show_size, ("extras_size",), ("extras_by", "extras_to"), queue=False)
    for panel in ("picture", "history"):
        sent = ("extras_files", "extras_message", "panels", f"{panel}_message")
        wiring.on(parts[f"{panel}_extras"].click, partial(extras.send, panel), (f"{panel}_chosen",), sent)
