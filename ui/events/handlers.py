"""What happens on each event: form values in, {component name: new value} out; the work itself is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from modules.catalog.models import checkpoint_facts
from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.gallery.history import History
from modules.gallery.output import OutputFolder
from modules.tasks.kinds import free_memory, make_pictures
from modules.tasks.queue import GenerationQueue, Work
from modules.tasks.task import Ticket
from ui.fields import LORA_SLOTS, defaults
from ui.panels import render
from ui.panels.file_lists import FileLists
from ui.panels.results import PICTURES
from ui.requests import build_options
from ui.settings import SettingsFile

Update = dict[str, Any]
REFRESH_SECONDS = 0.25
PLACEHOLDER = "What the picture shows"


class Handlers:
    """Everything that answers the page's events; one object for all browser tabs."""

    def __init__(
        self, queue: GenerationQueue, folders: ModelFolders, output: OutputFolder, settings: SettingsFile
    ) -> None:
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
            ticket = self.queue.submit("", make_pictures(options, self.output))
        except LightDiffusionError as error:
            yield {"message": render.error_box(str(error))}
            return
        yield {
            "message": self.remember(values),
            "ticket": ticket.id,
            "panels": gr.Tabs(selected=PICTURES),
            "picture_details": hide(),
        }
        yield from self.watch(ticket, self.show_pictures, accelerated=options.stable_fast != "off")

    def remember(self, values: Mapping[str, Any]) -> str:
        """Keeps the form for the next start; where that fails, pictures are made all the same."""
        try:
            self.settings.save(values)
        except LightDiffusionError as error:
            return render.note_box(str(error))
        return ""

    def run(self, label: str, work: Work, show: Any, message: str) -> Iterator[Update]:
        """The same for comparison and grid, which show their results and messages elsewhere."""
        ticket = self.queue.submit(label, work)
        yield {message: "", "message": "", "ticket": ticket.id}
        yield from self.watch(ticket, show, message=message)

    def watch(
        self, ticket: Ticket, show: Any, *, message: str = "message", accelerated: bool = False
    ) -> Iterator[Update]:
        """Follows a request to its end. Leaving early (a closed page) leaves the request running."""
        shown = -1
        while not ticket.finished:
            update: Update = {
                "stage": render.stage(ticket, self.queue.ahead_of(ticket), accelerated=accelerated),
                "cancel": gr.Button(interactive=not ticket.cancel.cancelled),
            }
            if len(ticket.pictures) != shown:
                shown = len(ticket.pictures)
                update |= {**show(ticket), "stable_fast_status": render.status_line(ticket.note)}
            yield update
            ticket.wait(REFRESH_SECONDS)
        yield {
            **show(ticket),
            "stage": render.stage(ticket, 0),
            "cancel": gr.Button(interactive=False),
            **({message: render.error_box(ticket.error)} if ticket.state == "failed" else {}),
            "stable_fast_status": render.status_line(ticket.note),
        }

    def show_pictures(self, ticket: Ticket) -> Update:
        paths = [str(path) for path in ticket.pictures if path.exists()]
        update: Update = {
            "gallery": gr.Gallery(value=paths, visible=bool(paths), columns=min(len(paths), 3) or 1),
            "empty": gr.HTML(visible=not paths and ticket.finished),
            "paths": paths,
        }
        return update | (self.choose("picture", paths[0]) if paths and ticket.finished else {})

    def cancel(self, ticket_id: str) -> Update:
        """Stops the request of this browser tab within one step, or takes it out of the line."""
        self.queue.cancel(ticket_id)
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

    def follow(self, ticket_id: str) -> Iterator[Update]:
        """After a reload: what this tab asked for last, running or finished."""
        ticket = self.queue.find(ticket_id)
        yield {} if ticket is None else {"ticket": ticket.id}
        if ticket is not None:
            yield from self.watch(ticket, self.show_pictures)

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
        """Waits for its turn: what runs keeps its models."""
        if self.queue.session is None:
            return {"memory": render.memory_line("No model is loaded yet.")}
        ticket = self.queue.submit("freeing memory", free_memory)
        ticket.wait()
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
