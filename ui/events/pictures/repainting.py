"""Handles the panel that repaints marked parts of a finished picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.gallery.inputs import keep_drawing
from modules.generation.options import GenerationOptions, InitImage
from ui.events.handlers import Handlers, Update, hide
from ui.events.pictures.editors import connect_editor, shown_later
from ui.events.pictures.recall import read_options
from ui.events.wiring import Wiring
from ui.fields import editor_value
from ui.filled_form import for_number
from ui.panels import render
from ui.panels.results.panels import PICTURES
from ui.requests import PlaceError

INPUTS = ("repaint_path", "repaint_editor", "repaint_prompt", "repaint_denoise")
PANEL = ("repaint_panel", "repaint_editor", "repaint_path", "repaint_message", "panels")


def connect_repainting(wiring: Wiring, handlers: Handlers, run: Sequence[str]) -> None:
    """Connects the panel and the buttons that open it; `run` are the components that show a request's progress."""
    repainting, parts = Repainting(handlers), wiring.parts
    for panel in ("picture", "history"):
        answer = shown_later(partial(repainting.open, panel), "repaint_editor")
        outputs = (*PANEL, "repaint_editor_path", f"{panel}_message")
        opened = wiring.on(parts[f"{panel}_repaint"].click, answer, (f"{panel}_chosen",), outputs)
        connect_editor(wiring, opened, "repaint_editor")
    wiring.on(parts["repaint_close"].click, repainting.close, (), ("repaint_panel", "repaint_editor"), queue=False)
    wiring.on_start("repaint_start", repainting.repaint, INPUTS, (*run, *PANEL))


class Repainting:
    """Takes the models, the seed and the sampling from the picture, whose settings stay in the new one's metadata."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def open(self, panel: str, path: str) -> Update:
        if not Path(path).is_file():
            return {f"{panel}_message": render.error_box(f"{Path(path).name} no longer exists.")}
        return {
            "repaint_panel": gr.Column(visible=True),
            "repaint_editor": editor_value(Path(path)),
            "repaint_path": path,
            "repaint_message": "",
            "panels": gr.Tabs(selected=PICTURES),
        }

    def close(self) -> Update:
        return {"repaint_panel": hide(), "repaint_editor": None}

    def repaint(self, path: str, drawing: Mapping[str, Any] | None, prompt: str, denoise: float) -> Iterator[Update]:
        handlers = self._handlers
        try:
            init = self._marked(drawing or {}, denoise)
            options = for_number(read_options(Path(path), handlers).options)
            yield from handlers.make(of_parts(options, init, prompt), self.close())
        except LightDiffusionError as error:
            yield handlers.refuse(error, "repaint_message")

    def _marked(self, drawing: Mapping[str, Any], denoise: float) -> InitImage:
        background, layers = drawing.get("background"), drawing.get("layers") or []
        kept = None if background is None else keep_drawing(background, layers, self._handlers.output.folder)
        if kept is None or kept.mask is None:
            raise PlaceError("Nothing is painted: paint over the parts to repaint.", "repaint_message")
        return InitImage(image=kept.image, mask=kept.mask, denoise=denoise, each_part=True)


def of_parts(options: GenerationOptions, init: InitImage, prompt: str) -> GenerationOptions:
    """Returns the request that repaints the marked parts of a picture made with `options`, at the native size."""
    return replace(
        options,
        prompt=prompt.strip() or options.prompt,
        init=init,
        width=None,
        height=None,
        hires=None,
        tiled=None,
        refiner=None,
        refiner_start=None,
    )
