"""Saves, applies and deletes styles, and lists the wildcards."""

from __future__ import annotations

import gradio as gr

from modules.catalog.styles import Style, delete_styles, read_styles, save_style
from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.wording.spelled_out import with_styles
from ui.events.handlers import Update, hide_row
from ui.events.wiring import Wiring
from ui.panels import prompt_lines, render

CHOSEN = ("styles", "prompt", "negative_prompt")
LISTS = ("styles", "wildcards", "styles_message")
NONE_CHOSEN = "No style is chosen: choose one in the list above."


class Styles:
    """Handles the section of styles and wildcards."""

    def __init__(self, folders: ModelFolders) -> None:
        self.folders = folders

    def look(self) -> Update:
        """Reads both lists anew."""
        names = [name.removesuffix(".txt") for name in self.folders.list("wildcards")]
        found = {"wildcards": prompt_lines.wildcard_list(names, self.folders.folders("wildcards")[0])}
        try:
            return {**found, "styles": gr.update(choices=self._names()), "styles_message": ""}
        except LightDiffusionError as error:
            return {**found, "styles_message": render.error_box(str(error))}

    def save(self, name: str, prompt: str, negative: str) -> Update:
        style = Style(name=(name or "").strip(), prompt=prompt or "", negative_prompt=negative or "")
        try:
            save_style(self.folders, style)
            done = {"styles": gr.update(choices=self._names()), "style_name": ""}
        except LightDiffusionError as error:
            return {"styles_message": render.error_box(str(error))}
        return {**done, "styles_message": render.note_box(f"The style {style.name} is saved.")}

    def apply(self, styles: list[str], prompt: str, negative: str) -> Update:
        """Writes the texts of the chosen styles into the prompts, and chooses none."""
        if not styles:
            return {"styles_message": render.error_box(NONE_CHOSEN)}
        options = GenerationOptions(prompt=prompt or "", negative_prompt=negative or "", styles=tuple(styles))
        try:
            said = with_styles(options, self.folders)
        except LightDiffusionError as error:
            return {"styles_message": render.error_box(str(error))}
        texts = {"prompt": said.prompt, "negative_prompt": said.negative_prompt}
        return {**texts, "styles": [], "styles_message": ""}

    def ask(self, styles: list[str]) -> Update:
        if not styles:
            return {"styles_message": render.error_box(NONE_CHOSEN)}
        return {"styles_confirm": gr.Row(visible=True), "styles_message": ""}

    def keep(self) -> Update:
        return {"styles_confirm": hide_row()}

    def delete(self, styles: list[str]) -> Update:
        try:
            delete_styles(self.folders, styles)
            left = {"styles": gr.update(choices=self._names(), value=[])}
        except LightDiffusionError as error:
            return {"styles_confirm": hide_row(), "styles_message": render.error_box(str(error))}
        words = f"Deleted: {', '.join(styles)}."
        return {**left, "styles_confirm": hide_row(), "styles_message": render.note_box(words)}

    def _names(self) -> list[str]:
        return list(dict.fromkeys(style.name for style in read_styles(self.folders)))


def connect_styles(wiring: Wiring, styles: Styles) -> None:
    parts, on = wiring.parts, wiring.on
    for event in (parts["styles_panel"].expand, wiring.apart(("refresh",), "click")):
        on(event, styles.look, (), LISTS, queue=False)
    saved = ("styles", "style_name", "styles_message")
    for event in (parts["style_save"].click, parts["style_name"].submit):
        on(event, styles.save, ("style_name", "prompt", "negative_prompt"), saved, queue=False)
    on(parts["styles_apply"].click, styles.apply, CHOSEN, (*CHOSEN, "styles_message"), queue=False)
    asked = ("styles_confirm", "styles_message")
    on(parts["styles_delete"].click, styles.ask, ("styles",), asked, queue=False)
    on(parts["styles_keep"].click, styles.keep, (), ("styles_confirm",), queue=False)
    on(parts["styles_confirmed"].click, styles.delete, ("styles",), ("styles", *asked), queue=False)
