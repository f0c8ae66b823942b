"""Handles existing pictures: reuses their settings, starts from them, deletes them; also handles the history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.gallery.uploads import reachable
from modules.generation.options import GenerationOptions
from ui.events.handlers import Handlers, Update, hide, hide_row
from ui.fields import CONTROL_SLOTS, IMAGE_MODE
from ui.panels import render
from ui.requests import editor_value, for_number, to_form

if TYPE_CHECKING:
    from modules.generation.metadata.recall import Recalled

PAGE = 48


class Recall:
    """Handles the buttons under a picture; `panel` ("picture" or "history") is the prefix of its components."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    # Settings

    def use(self, panel: str, path: str) -> Update:
        """Sets every field as it was for this picture, and clears the unused ones."""
        return self._restore(Path(path), f"{panel}_message")

    def restore(self, file: str | None) -> Update:
        """Works like `use` for a dropped file, made here or by A1111, and clears the drop field."""
        return {"restore": None, **self._restore(Path(file), "message")} if file else {}

    def to_hires(self, panel: str, path: str) -> Update:
        update = self._restore(Path(path), f"{panel}_message", hires=True)
        return update | {"hires_panel": gr.Accordion(open=True)}

    def _restore(self, path: Path, message: str, *, hires: bool = False) -> Update:
        if not path.is_file():
            return {message: render.error_box(f"{path.name} no longer exists.")}
        try:
            recalled = read_options(path, self.handlers)
            options = for_number(recalled.options)
        except LightDiffusionError as error:
            return {message: render.error_box(str(error))}
        lost = out_of_reach(options, self.handlers.output.folder)
        form = to_form(options, self.handlers.fresh(), lost)
        if hires:
            form["hires"] = True
        words = f"Settings taken from {path.name}." + (" HiresFix is on: press Generate." if hires else "")
        if lost:
            words += " A picture that it started from is gone or outside the output folder: drop it in again."
        if beyond := options.controls[CONTROL_SLOTS:]:
            names = ", ".join(net.name for net in beyond)
            words += f" The form has room for {CONTROL_SLOTS} ControlNets; left out: {names}."
        if recalled.left_out:
            words += f" Left out, because it is not supported: {recalled.left_out}."
        modes = {"modes": gr.Tabs(selected=form["mode"])}
        return {**form, **modes, **self.handlers.lora_rows(form), message: render.note_box(words)}

    # Starting from a picture

    def to_init(self, panel: str, path: str) -> Update:
        if not Path(path).is_file():
            return self._gone(panel, path)
        return {
            "editor": editor_value(Path(path)),
            "mode": IMAGE_MODE,
            "modes": gr.Tabs(selected=IMAGE_MODE),
            f"{panel}_message": render.note_box("The picture is now under Image to image: paint a mask if you like."),
        }

    def to_control(self, panel: str, path: str) -> Update:
        if not Path(path).is_file():
            return self._gone(panel, path)
        return {
            "control_1_image": path,
            "control_panel": gr.Accordion(open=True),
            f"{panel}_message": render.note_box("The picture is now the control picture of ControlNet 1."),
        }

    def _gone(self, panel: str, path: str) -> Update:
        return {f"{panel}_message": render.error_box(f"{Path(path).name} no longer exists.")}

    # Deleting

    def ask(self, panel: str) -> Update:
        return {f"{panel}_confirm": gr.Row(visible=True)}

    def keep(self, panel: str) -> Update:
        return {f"{panel}_confirm": hide_row()}

    def delete(self, panel: str, path: str, paths: list[str], words: str, page: int) -> Update:
        try:
            self.handlers.history.delete(Path(path))
        except LightDiffusionError as error:
            return {f"{panel}_message": render.error_box(str(error)), f"{panel}_confirm": hide_row()}
        if panel == "history":
            return self.look(words, page, paths)
        left = [other for other in paths if other != path]
        update: Update = {"paths": left, "gallery": gr.Gallery(value=left, visible=bool(left), selected_index=None)}
        update |= {"picture_details": hide(), "picture_confirm": hide_row(), "empty": gr.HTML(visible=not left)}
        return update | (self.handlers.choose("picture", left[0]) if left else {})

    # History

    def search(self, words: str, _: int, shown: list[str]) -> Update:
        return self.look(words, 0, shown)

    def older(self, words: str, page: int, shown: list[str]) -> Update:
        return self.look(words, page + 1, shown)

    def newer(self, words: str, page: int, shown: list[str]) -> Update:
        return self.look(words, max(0, page - 1), shown)

    def look(self, words: str, page: int, shown: list[str]) -> Update:
        """Returns one page of the search results, newest first.

        If the pictures are the same as in `shown`, the list is not updated, so the user's selection is kept.
        """
        entries, total = self.handlers.history.search(words or "", limit=PAGE, skip=page * PAGE)
        paths = [str(entry.path) for entry in entries]
        first = page * PAGE + 1
        found = (
            f"{first}-{first + len(paths) - 1} of {total}" if paths else "Nothing found." if words else "Nothing yet."
        )
        update: Update = {
            "history_words": render.status_line(found),
            "page": page,
            "older": gr.Button(interactive=first + len(paths) <= total),
            "newer": gr.Button(interactive=page > 0),
        }
        if paths == shown:
            return update
        return update | {
            "history_gallery": gr.Gallery(value=paths, selected_index=None),
            "history_paths": paths,
            "history_details": hide(),
            "history_confirm": hide_row(),
        }


def read_options(path: Path, handlers: Handlers) -> Recalled:
    from modules.generation.metadata.recall import recall_picture

    return recall_picture(path, handlers.output.folder, folders=handlers.folders)


def out_of_reach(options: GenerationOptions, folder: Path) -> list[Path]:
    """Lists the start pictures of a recalled request that are missing or outside the folder."""
    return [path for path in options.pictures if not reachable(path, [folder])]
