"""Handles existing pictures: reuses their settings, starts from them, deletes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.gallery.uploads import reachable
from modules.generation.options import GenerationOptions
from modules.generation.wording.recognised_styles import recognised_styles
from ui.events.control_maps import ControlMaps
from ui.events.handlers import Handlers, Update, hide, hide_row
from ui.events.pictures.masking import with_mask_file
from ui.fields import CONTROL_SLOTS, IMAGE_MODE, editor_value
from ui.filled_form import for_number, to_form
from ui.panels import render
from ui.panels.file_lists import FileLists

if TYPE_CHECKING:
    from modules.generation.metadata.problems import Problem
    from modules.generation.metadata.recall import Recalled


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
        return {"restore": None, **self._restore(Path(file), "restore_message")} if file else {}

    def _restore(self, path: Path, message: str) -> Update:
        if not path.is_file():
            return {message: render.error_box(f"{path.name} no longer exists.")}
        try:
            recalled = read_options(path, self.handlers)
            options = recognised_styles(for_number(recalled.options), self.handlers.folders)
            lost = out_of_reach(options, self.handlers.output.folder)
            options = with_mask_file(options, lost, self.handlers.output.folder)
        except LightDiffusionError as error:
            return {message: render.error_box(str(error))}
        form = to_form(options, self.handlers.fresh(), lost)
        form = FileLists(folders=self.handlers.folders).listed(form)
        words = f"Settings taken from {path.name}."
        if lost:
            words += " A picture that it started from is gone or outside the output folder: drop it in again."
        if beyond := options.controls[CONTROL_SLOTS:]:
            names = ", ".join(net.name for net in beyond)
            words += f" The form has room for {CONTROL_SLOTS} ControlNets; left out: {names}."
        if recalled.left_out:
            words += f" Left out, because it is not supported: {recalled.left_out}."
        missing = missing_in(recalled, self.handlers.folders)
        words += "".join(f" {problem.reason}" for problem in missing)
        if any(problem.option == "checkpoint" for problem in missing):
            del form["checkpoint"]
            words += " The form keeps its own checkpoint."
        modes = {"modes": gr.Tabs(selected=form["mode"])}
        if form["mask_file"]:
            modes |= {"mask_panel": gr.Accordion(open=True)}
        return {**form, **modes, **self.handlers.lora_rows(form), "message": "", message: render.note_box(words)}

    # Starting from a picture

    def to_init(self, panel: str, path: str) -> Update:
        if not Path(path).is_file():
            return self._gone(panel, path)
        return {
            "editor": editor_value(Path(path)),
            "mask_file": None,
            "mode": IMAGE_MODE,
            "modes": gr.Tabs(selected=IMAGE_MODE),
            f"{panel}_message": render.note_box("The picture is now under Image to image: paint a mask if you like."),
        }

    def to_control(self, panel: str, path: str, net: str | None, preprocessor: str) -> Update:
        if not Path(path).is_file():
            return self._gone(panel, path)
        return {
            **ControlMaps(1).preselect(net, preprocessor, path),
            "control_1_image": path,
            "control_panel": gr.Accordion(open=True),
            f"{panel}_message": render.note_box("The picture is now the control picture of ControlNet 1."),
        }

    def _gone(self, panel: str, path: str) -> Update:
        return {f"{panel}_message": render.error_box(f"{Path(path).name} no longer exists.")}

    # Deleting

    def ask(self, panel: str, path: str) -> Update:
        return {f"{panel}_confirm": gr.Row(visible=True), f"{panel}_question": render.deletion(Path(path).name)}

    def keep(self, panel: str) -> Update:
        return {f"{panel}_confirm": hide_row()}

    def delete(self, path: str, paths: list[str]) -> Update:
        """Deletes a picture of the last request, and chooses another one."""
        try:
            self.handlers.history.delete(Path(path))
        except LightDiffusionError as error:
            return {"picture_message": render.error_box(str(error)), "picture_confirm": hide_row()}
        left = [other for other in paths if other != path]
        update: Update = {"paths": left, "gallery": gr.Gallery(value=left, visible=bool(left), selected_index=None)}
        update |= {
            "stage": render.READY,
            "picture_details": hide(),
            "picture_confirm": hide_row(),
            "empty": gr.HTML(visible=not left),
        }
        return update | (self.handlers.choose("picture", left[0]) if left else {})


def read_options(path: Path, handlers: Handlers) -> Recalled:
    from modules.generation.metadata.recall import recall_picture

    return recall_picture(path, handlers.output.folder, folders=handlers.folders)


def missing_in(recalled: Recalled, folders: ModelFolders) -> list[Problem]:
    from modules.generation.metadata.recall import missing_models

    return missing_models(recalled.models, folders)


def out_of_reach(options: GenerationOptions, folder: Path) -> list[Path]:
    """Lists the start pictures of a recalled request that are missing or outside the folder."""
    return [path for path in options.pictures if not reachable(path, [folder])]
