"""Handles each event: takes form values and returns {component name: new value}; other modules do the work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from modules.catalog.models import checkpoint_facts
from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.gallery.history import History
from modules.gallery.output import OutputFolder
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import FreeMemory, MakePictures, Task
from ui.fields import LORA_SLOTS, defaults
from ui.panels import render
from ui.panels.file_lists import FileLists
from ui.panels.results import PICTURES
from ui.requests import build_options
from ui.settings import SettingsFile

Update = dict[str, Any]
Show = Callable[[QueuedTask], Update]  # a task's results so far, as shown on the page
REFRESH_SECONDS = 0.25
PLACEHOLDER = "What the picture shows"


class Handlers:
    """Handles all events of the page; one object serves all browser tabs."""

    def __init__(self, queue: TaskQueue, folders: ModelFolders, output: OutputFolder, settings: SettingsFile) -> None:
        self.queue = queue
        self.folders = folders
        self.output = output
        self.settings = settings
        self.history = History(output.folder)

    def fresh(self) -> dict[str, Any]:
        return defaults(self.folders)

    def remembered(self) -> dict[str, Any]:
        return self.settings.load(self.fresh())

    # Running

    def generate(self, values: Mapping[str, Any]) -> Iterator[Update]:
        """Runs one request; shows progress and pictures as they come, or an error beside the form."""
        try:
            options = build_options(values, self.output.folder)
            queued = self.queue.submit(MakePictures(options=options))
        except LightDiffusionError as error:
            yield {"message": render.error_box(str(error))}
            return
        yield {
            "message": self.remember(values),
            "task": queued.id,
            "panels": gr.Tabs(selected=PICTURES),
            "picture_details": hide(),
        }
        yield from self.watch(queued, self.show_pictures, accelerated=options.stable_fast != "off")

    def remember(self, values: Mapping[str, Any]) -> str:
        """Saves the form for the next run of the program; if that fails, pictures are still made."""
        try:
            self.settings.save(values)
        except LightDiffusionError as error:
            return render.note_box(str(error))
        return ""

    def run(self, task: Task, show: Show, message: str) -> Iterator[Update]:
        """Runs a comparison or grid, whose results and messages appear elsewhere on the page."""
        queued = self.queue.submit(task)
        yield {message: "", "message": "", "task": queued.id}
        yield from self.watch(queued, show, message=message)

    def watch(
        self, queued: QueuedTask, show: Show, *, message: str = "message", accelerated: bool = False
    ) -> Iterator[Update]:
        """Follows a request to its end. Closing the page leaves the request running."""
        shown = -1
        while not queued.finished:
            update: Update = {
                "stage": render.stage(queued, self.queue.ahead_of(queued), accelerated=accelerated),
                "cancel": gr.Button(interactive=not queued.cancel.cancelled),
            }
            if len(queued.pictures) != shown:
                shown = len(queued.pictures)
                update |= {**show(queued), "stable_fast_status": render.status_line(queued.note)}
            yield update
            queued.wait(REFRESH_SECONDS)
        yield {
            **show(queued),
            "stage": render.stage(queued, 0),
            "cancel": gr.Button(interactive=False),
            **({message: render.error_box(queued.error)} if queued.state == "failed" else {}),
            "stable_fast_status": render.status_line(queued.note),
        }

    def show_pictures(self, queued: QueuedTask) -> Update:
        paths = [str(path) for path in queued.pictures if path.exists()]
        update: Update = {
            "gallery": gr.Gallery(value=paths, visible=bool(paths), columns=min(len(paths), 3) or 1),
            "empty": gr.HTML(visible=not paths and queued.finished),
            "paths": paths,
        }
        return update | (self.choose("picture", paths[0]) if paths and queued.finished else {})

    def cancel(self, task_id: str) -> Update:
        """Stops this browser tab's request within one step, or removes it from the queue."""
        self.queue.cancel(task_id)
        return {"cancel": gr.Button(interactive=False)}

    # Opening the page

    def open_page(self, built: Mapping[str, Any]) -> Update:
        """Returns the current model files and the last used form.

        The browser fills in only the fields that still show their initial value, so typed text is not lost.
        """
        values = self.remembered()
        return {
            **self.refresh(),
            **self.hint(values["checkpoint"]),
            **self.lora_rows(values),
            "remembered": json.dumps({"built": list(built.values()), "now": [values[name] for name in built]}),
        }

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

    def native_size(self, name: str | None) -> Update:
        """Sets the size to the native size of the checkpoint that the user chose."""
        size = checkpoint_facts(self.folders, name).native_size
        return {"width": size, "height": size}

    # Small conveniences of the form

    def lora_rows(self, values: Mapping[str, Any]) -> Update:
        """Shows one LoRA slot more than there are LoRAs in use."""
        return {
            f"lora_{slot}_row": gr.Row(visible=bool(values[f"lora_{slot - 1}"] or values[f"lora_{slot}"]))
            for slot in range(2, LORA_SLOTS + 1)
        }

    def last_seed(self) -> Update:
        try:
            return {"seed": str(self.output.last_seed()), "message": ""}
        except LightDiffusionError as error:
            return {"message": render.error_box(str(error))}

    # Memory

    def memory(self) -> Update:
        session = self.queue.session
        if session is None:
            return {}
        from modules.core.device import memory_report

        waiting = len(self.queue.unfinished())
        line = f" · {waiting} in the queue" if waiting else ""
        return {"memory": render.memory_line(f"{session.device} · {memory_report(session.device)}{line}")}

    def free(self) -> Update:
        """Frees memory through the queue, so that no running task loses its models."""
        if self.queue.session is None:
            return {"memory": render.memory_line("No model is loaded yet.")}
        self.queue.submit(FreeMemory()).wait()
        return self.memory()

    # The selected picture

    def choose(self, panel: str, path: str) -> Update:
        text = self.history.text(Path(path)) or "This file holds no settings."
        return {
            f"{panel}_chosen": path,
            f"{panel}_text": text,
            f"{panel}_details": gr.Column(visible=True),
            f"{panel}_confirm": hide_row(),
            f"{panel}_message": "",
        }


def hide() -> Any:
    return gr.Column(visible=False)


def hide_row() -> Any:
    return gr.Row(visible=False)
