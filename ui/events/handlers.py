"""Handles each event: takes form values and returns {component name: new value}; other modules do the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from modules.catalog.models import checkpoint_facts
from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.gallery.history import History
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory, MakePictures, Task
from ui.fields import LORA_SLOTS, MESSAGES, defaults
from ui.panels import render
from ui.panels.file_lists import FileLists
from ui.panels.results.panels import PICTURES
from ui.panels.results.pictures import STAR, UNSTAR
from ui.requests import PlaceError, build_options, with_kept_pictures
from ui.settings import SettingsFile

Update = dict[str, Any]
Show = Callable[[QueuedTask], Update]  # a task's results so far, as shown on the page
REFRESH_SECONDS = 0.25
NO_MESSAGES: Update = dict.fromkeys(MESSAGES, "")
PLACEHOLDER = "What the picture shows"


class Handlers:
    """Handles all events of the page; one object serves all browser tabs."""

    def __init__(
        self,
        queue: TaskQueue,
        folders: ModelFolders,
        output: OutputFolder,
        settings: SettingsFile,
        *,
        gpu: bool = True,
    ) -> None:
        self.queue = queue
        self.folders = folders
        self.output = output
        self.settings = settings
        self.gpu = gpu
        self.history = History(output.folder)

    def fresh(self) -> dict[str, Any]:
        return defaults(self.folders)

    def remembered(self) -> dict[str, Any]:
        return self.settings.load(self.fresh())

    # Running

    def generate(self, values: Mapping[str, Any], *, has_previews: bool = True) -> Iterator[Update]:
        """Runs one request; shows progress and pictures as they come, or an error beside the form."""
        try:
            options = build_options(values, self.output.folder)
            first = self.remember(with_kept_pictures(values, options))
            yield from self.make(options, first, has_previews=has_previews)
        except LightDiffusionError as error:
            yield self.refuse(error, "message")

    def make(self, options: GenerationOptions, first: Update, *, has_previews: bool = True) -> Iterator[Update]:
        """Runs this request in the Pictures tab; `first` comes with the first update."""
        queued = self.queue.submit(MakePictures(options=options), has_previews=has_previews)
        yield {**NO_MESSAGES, **first, "task": queued.id, "panels": gr.Tabs(selected=PICTURES)}
        yield from self.watch(queued, self.show_pictures, accelerated=options.stable_fast != "off")

    def remember(self, values: Mapping[str, Any]) -> Update:
        """Saves the form for this tab, for new tabs and for the next run; if that fails, pictures are still made."""
        own = {"own_form": self.settings.write(values)}
        try:
            self.settings.save(values)
        except LightDiffusionError as error:
            return {**own, "message": render.note_box(str(error))}
        return own

    def refuse(self, error: LightDiffusionError, place: str) -> Update:
        """Says why nothing was started: beside the part of the form that the error names, or else at `place`."""
        if isinstance(error, PlaceError):
            place = error.place
        update = {**NO_MESSAGES, place: render.error_box(str(error)), "stage": render.REFUSED}
        return update | ({"control_panel": gr.Accordion(open=True)} if place == "control_message" else {})

    def run(self, task: Task, show: Show, message: str) -> Iterator[Update]:
        """Runs a comparison or grid, whose results and messages appear elsewhere on the page."""
        queued = self.queue.submit(task)
        yield {**NO_MESSAGES, "task": queued.id}
        yield from self.watch(queued, show, message=message, preview="compare_preview")

    def watch(
        self,
        queued: QueuedTask,
        show: Show,
        *,
        message: str = "message",
        preview: str = "preview",
        accelerated: bool = False,
    ) -> Iterator[Update]:
        """Follows a request to its end. Closing the page leaves the request running."""
        shown = -1
        while not queued.finished:
            update: Update = {
                "stage": render.stage(queued, self.queue.ahead_of(queued), accelerated=accelerated),
                preview: render.preview(queued),
                "cancel": gr.Button(interactive=not queued.cancel.cancelled),
                "skip": gr.Button(interactive=self.can_skip(queued)),
            }
            if len(queued.pictures) != shown:
                shown = len(queued.pictures)
                update |= {**show(queued), "stable_fast_status": render.status_line(queued.note)}
            yield update
            queued.wait(REFRESH_SECONDS)
        yield {
            **show(queued),
            **self.memory(),
            "stage": render.stage(queued, 0),
            preview: "",
            "cancel": gr.Button(interactive=False),
            "skip": gr.Button(interactive=False),
            **({message: render.error_box(queued.error)} if queued.state == "failed" else {}),
            "stable_fast_status": render.status_line(queued.note),
        }

    def show_pictures(self, queued: QueuedTask) -> Update:
        """Shows the pictures of this request; until there is one, the earlier ones stay."""
        paths = [str(path) for path in queued.pictures if path.exists()]
        if not paths:
            return {}
        update: Update = {
            "gallery": gr.Gallery(value=paths, visible=True, columns=min(len(paths), 3)),
            "empty": gr.HTML(visible=False),
            "paths": paths,
        }
        return update | (self.choose("picture", paths[0]) if queued.finished else {"picture_details": hide()})

    def cancel(self, task_id: str) -> Update:
        """Stops this browser tab's request within one step, or removes it from the queue."""
        self.queue.cancel(task_id)
        return {"cancel": gr.Button(interactive=False)}

    def can_skip(self, queued: QueuedTask) -> bool:
        """Returns whether another batch is left to go on with."""
        return queued.pace is not None and queued.pace.batches > 1 and self.queue.can_skip(queued)

    def skip(self, task_id: str) -> Update:
        """Ends the batch in the works of this browser tab's request within one step."""
        self.queue.skip(task_id)
        return {"skip": gr.Button(interactive=False)}  # until the page shows the next progress

    # Opening the page; see also opening.py

    def follow(self, task_id: str) -> Iterator[Update]:
        """Restores this tab's last request after a reload, running or finished."""
        queued = self.queue.find(task_id)
        yield {} if queued is None else {"task": queued.id}
        if queued is not None:
            yield from self.watch(queued, self.show_pictures)

    def refresh(self) -> Update:
        lists = FileLists(folders=self.folders).lists()
        return {name: gr.update(choices=choices) for name, choices in lists.items()}

    def hint(self, checkpoint: str | None) -> Update:
        """Shows what this checkpoint can draw, as the prompt field's placeholder."""
        return {"prompt": gr.update(placeholder=checkpoint_facts(self.folders, checkpoint).description or PLACEHOLDER)}

    def shapes(self, checkpoint: str | None, width: int | None, height: int | None) -> Update:
        return {"preset": gr.Dropdown(**FileLists(folders=self.folders).shapes(checkpoint, width, height))}

    def set_shape(self, shape: str | None, checkpoint: str | None, width: int | None, height: int | None) -> Update:
        """Sets the size to this shape. "Own size" changes nothing, so the list shows again what the size is."""
        if not shape:
            return self.shapes(checkpoint, width, height)
        wide, _, high = shape.partition("x")
        return {"width": int(wide), "height": int(high)}

    def native_size(self, name: str | None) -> Update:
        """Sets the size to the native size of this checkpoint."""
        size = checkpoint_facts(self.folders, name).native_size
        return {"width": size, "height": size}

    def fitting_size(self, checkpoint: str | None, width: int | None, height: int | None) -> Update:
        """Keeps a size that is a shape of the checkpoint that the user chose; sets its native size otherwise."""
        is_shape = FileLists(folders=self.folders).shapes(checkpoint, width, height)["value"]
        return {} if is_shape else self.native_size(checkpoint)

    # Small conveniences of the form

    def lora_rows(self, values: Mapping[str, Any]) -> Update:
        """Shows one LoRA slot more than there are LoRAs in use."""
        return {name: gr.Row(visible=visible) for name, visible in shown_rows(values).items()}

    def last_seed(self) -> Update:
        try:
            return {"seed": str(self.output.last_seed()), "message": ""}
        except LightDiffusionError as error:
            return {"message": render.error_box(str(error))}

    # Memory

    def memory(self) -> Update:
        status = self.queue.status
        if not status:
            return {}
        waiting = sum(queued.state == "waiting" for queued in self.queue.unfinished())
        line = f" · {waiting} waiting" if waiting else ""
        return {"memory": render.memory_line(f"{status}{line}")}

    def free(self) -> Update:
        """Frees memory through the queue, so that no running task loses its models."""
        if not self.queue.status:
            return {"memory": render.memory_line("No model is loaded yet.")}
        self.queue.submit(FreeMemory()).wait()
        return self.memory()

    # The selected picture

    def choose(self, panel: str, path: str) -> Update:
        text = self.history.text(Path(path)) or "This file holds no settings."
        try:
            starred, message = self.history.stars.has(Path(path)), ""
        except LightDiffusionError as error:
            starred, message = False, render.error_box(str(error))
        return {
            f"{panel}_chosen": path,
            f"{panel}_text": text,
            f"{panel}_details": gr.Column(visible=True),
            f"{panel}_confirm": hide_row(),
            f"{panel}_message": message,
            f"{panel}_star": UNSTAR if starred else STAR,
        }


def shown_rows(values: Mapping[str, Any]) -> dict[str, bool]:
    """Returns which rows of LoRA slots are shown, after the first one."""
    return {
        f"lora_{slot}_row": bool(values[f"lora_{slot - 1}"] or values[f"lora_{slot}"])
        for slot in range(2, LORA_SLOTS + 1)
    }


def hide() -> Any:
    return gr.Column(visible=False)


def hide_row() -> Any:
    return gr.Row(visible=False)
