"""Handles the presets: uses, saves and deletes forms that are kept under names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import gradio as gr

from modules.core.errors import LightDiffusionError
from ui.events.handlers import Handlers, Update, hide_row
from ui.events.opening import Opening
from ui.events.wiring import Wiring
from ui.fields import CONTROL_IMAGES, IMAGE_FIELDS
from ui.panels import render
from ui.panels.file_lists import FileLists
from ui.presets import Presets


class PresetEvents:
    """The handlers of the presets' panel."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._presets = Presets(handlers.settings.path.parent / "presets")

    def names(self) -> Update:
        names = self._presets.names()
        return {"presets": gr.update(choices=names)} if names else {}

    def load(self, name: str | None) -> Update:
        try:
            form = self._presets.load(written(name), self._handlers.fresh())
        except LightDiffusionError as error:
            return self._refuse(error)
        form = FileLists(folders=self._handlers.folders).listed(form)
        return {**form, **self._handlers.lora_rows(form), **said(f"The form is as in {name}.")}

    def save(self, form: Mapping[str, Any], name: str | None) -> Update:
        name = written(name)
        try:
            replaces = self._presets.save(name, form)
        except LightDiffusionError as error:
            return self._refuse(error)
        choices = {"presets": gr.update(choices=self._presets.names(), value=name)}
        without = ", without the ControlNet and its picture" if any(form[net] for net in CONTROL_IMAGES) else ""
        return {**choices, **said(f"{name} is {'updated' if replaces else 'saved'}{without}.")}

    def ask(self) -> Update:
        return {"presets_confirm": gr.Row(visible=True), "presets_message": ""}

    def keep(self) -> Update:
        return {"presets_confirm": hide_row()}

    def delete(self, name: str | None) -> Update:
        try:
            self._presets.delete(written(name))
        except LightDiffusionError as error:
            return self._refuse(error)
        choices = {"presets": gr.update(choices=self._presets.names(), value=None)}
        return {**choices, **self.keep(), **said(f"{name} is deleted.")}

    def _refuse(self, error: LightDiffusionError) -> Update:
        return {**self.keep(), "presets_message": render.error_box(str(error))}


def written(name: str | None) -> str:
    return (name or "").strip()


def said(words: str) -> Update:
    return {"presets_message": render.note_box(words)}


def connect_presets(wiring: Wiring, handlers: Handlers, opening: Opening, lora_rows: Iterable[str]) -> None:
    parts, events, on = wiring.parts, PresetEvents(handlers), partial(wiring.on, queue=False)
    form = [name for name in wiring.fields if name not in (*IMAGE_FIELDS, "mode")]
    panel = ("presets", "presets_confirm", "presets_message")
    opening.add(lambda _: events.names(), ("presets",))
    on(parts["presets_load"].click, events.load, ("presets",), (*form, *lora_rows, *panel), queue=False)
    on(parts["presets_save"].click, wiring.with_form(events.save), (*wiring.fields, "presets"), panel)
    on(parts["presets_delete"].click, events.ask, (), panel)
    on(parts["presets_keep"].click, events.keep, (), panel)
    on(parts["presets_confirmed"].click, events.delete, ("presets",), panel)
