"""What happens on each event: form values in, {component name: new value} out; the work itself is elsewhere."""

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
Show = Callable[[QueuedTask], Update]  # what a task has made so far, for the page
REFRESH_SECONDS = 0.25
PLACEHOLDER = "What the picture shows"


class Handlers:
    """Everything that answers the page's events; one object for all browser tabs."""

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
        """One request: a message beside the form when it cannot be, else progress and pictures as they come."""
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
        """Keeps the form for the next start; where that fails, pictures are made all the same."""
        try:
            self.settings.save(values)
        except LightDiffusionError as error:
            return render.note_box(str(error))
        return ""

    def run(self, task: Task, show: Show, message: str) -> Iterator[Update]:
        """The same for comparison and grid, which show their results and messages elsewhere."""
        queued = self.queue.submit(task)
        yield {message: "", "message": "", "task": queued.id}
        yield from self.watch(queued, show, message=message)

    def watch(
        self, queued: QueuedTask, show: Show, *, message: str = "message", accelerated: bool = False
    ) -> Iterator[Update]:
        """Follows a request to its end. Leaving early (a closed page) leaves the request running."""
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
        """Stops the request of this browser tab within one step, or takes it out of the line."""
        self.queue.cancel(task_id)
        return {"cancel": gr.Button(interactive=False)}

    # Opening the page

    def open_page(self, built: Mapping[str, Any]) -> Update:
        """The model files there are now, and the form as it was last used, for the browser to fill in where the page
        still shows what it was built with: what was typed meanwhile stays."""
        values = self.remembered()
        return {
            **self.refresh(),
            **self.hint(values["checkpoint"]),
            **self.lora_rows(values),
            "remembered": json.dumps({"built": list(built.values()), "now": [values[name] for name in built]}),
        }

    def follow(self, task_id: str) -> Iterator[Update]:
        """After a reload: what this tab asked for last, running or finished."""
        queued = self.queue.find(task_id)
        yield {} if queued is None else {"task": queued.id}
        if queued is not None:
            yield from self.watch(queued, self.show_pictures)

    def refresh(self) -> Update:
        lists = FileLists(folders=self.folders).lists()
        return {name: gr.update(choices=choices) for name, choices in lists.items()}

    def hint(self, checkpoint: str | None) -> Update:
        """What this checkpoint knows, where the prompt is empty."""
        return {"prompt": gr.update(placeholder=checkpoint_facts(self.folders, checkpoint).description or PLACEHOLDER)}

    def shapes(self, checkpoint: str | None, width: int | None, height: int | None) -> Update:
        return {"preset": gr.Dropdown(**FileLists(folders=self.folders).shapes(checkpoint, width, height))}

    def native_size(self, name: str | None) -> Update:
        """A checkpoint chosen by hand brings its own size along."""
        size = checkpoint_facts(self.folders, name).native_size
        return {"width": size, "height": size}

    # Small conveniences of the form

    def lora_rows(self, values: Mapping[str, Any]) -> Update:
        """One empty slot more than there are LoRAs."""
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
        """Waits in the queue, so that a running task keeps its models."""
        if self.queue.session is None:
            return {"memory": render.memory_line("No model is loaded yet.")}
        self.queue.submit(FreeMemory()).wait()
        return self.memory()

    # The chosen picture

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
