"""Saves a picture as the thumbnail of the checkpoint and the LoRAs that made it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

import gradio as gr

from modules.catalog.sidecars import picture_of, stem_of
from modules.core.errors import LightDiffusionError
from modules.gallery.thumbnails import save_thumbnail
from modules.generation.checks.model_files import model_files
from ui.events.handlers import Handlers, Update, hide_row
from ui.events.pictures.recall import read_options
from ui.events.wiring import Wiring
from ui.panels import render

ENDING = ".preview.png"  # as in A1111
KINDS = ("checkpoints", "loras")


def connect_thumbnail(wiring: Wiring, handlers: Handlers, panel: str) -> None:
    parts, saving = wiring.parts, Saving(handlers)
    outputs = (f"{panel}_message", f"{panel}_replace", f"{panel}_replace_words")
    chosen = f"{panel}_chosen"
    wiring.on(parts[f"{panel}_thumbnail"].click, partial(saving.save, panel), (chosen,), outputs)
    wiring.on(parts[f"{panel}_replaced"].click, partial(saving.replace, panel), (chosen,), outputs)
    for event in (parts[f"{panel}_kept"].click, parts[chosen].change):
        wiring.on(event, lambda: {f"{panel}_replace": hide_row()}, (), (f"{panel}_replace",), queue=False)


class Saving:
    """Handles the button and the question; `panel` ("picture" or "history") is the prefix of its components."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def save(self, panel: str, path: str) -> Update:
        """Saves it for the models without a picture, and asks about the others."""
        try:
            models = self._models(Path(path))
            taken = [model for model in models if picture_of(model) is not None]
            free = [model for model in models if model not in taken]
            for model in free:
                save_thumbnail(Path(path), model.with_name(stem_of(model) + ENDING), replace=False)
        except LightDiffusionError as error:
            return {f"{panel}_message": render.error_box(str(error)), f"{panel}_replace": hide_row()}
        question = f"Replace the thumbnail of {names(taken)}?"
        return {
            f"{panel}_message": saved(free) if free else "",
            f"{panel}_replace": gr.Row(visible=bool(taken)),
            f"{panel}_replace_words": f'<p class="ld-words">{escape(question)}</p>',
        }

    def replace(self, panel: str, path: str) -> Update:
        try:
            models = self._models(Path(path))
            for model in models:
                save_thumbnail(Path(path), picture_of(model) or model.with_name(stem_of(model) + ENDING), replace=True)
        except LightDiffusionError as error:
            return {f"{panel}_message": render.error_box(str(error))}
        return {f"{panel}_message": saved(models), f"{panel}_replace": hide_row()}

    def _models(self, picture: Path) -> list[Path]:
        """Returns the checkpoints and LoRAs in the picture's settings. Raises LightDiffusionError."""
        folders = self._handlers.folders
        used = set(model_files(read_options(picture, self._handlers).options, folders))
        return [path for kind in KINDS for path in folders.paths(kind).values() if path in used]


def saved(models: Sequence[Path]) -> str:
    return render.note_box(f"The picture is now the thumbnail of {names(models)}.")


def names(models: Sequence[Path]) -> str:
    return ", ".join(stem_of(model) for model in models)
