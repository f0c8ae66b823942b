"""Handles Generate, and Repeat: after each request the page sends the next, until one fails or is cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ui.events.handlers import Handlers, Update
from ui.events.wiring import Wiring
from ui.fields import MESSAGES
from ui.panels import render

# Only an open page goes on.
GO_ON = "(repeat) => { if (repeat) document.querySelector('button#ld-generate')?.click(); }"


class Repeating:
    """Runs one request of the form, and switches Repeat off unless the request was made to its end.

    Pictures of Live (see live.js) have no previews.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def generate(
        self,
        values: Mapping[str, Any],
        repeat: bool,  # noqa: FBT001  # a checkbox
        live: bool,  # noqa: FBT001
    ) -> Iterator[Update]:
        task, last = "", Update()
        for last in self._handlers.generate(values, has_previews=not live):
            task = last.get("task", task)
            yield last
        queued = self._handlers.queue.find(task)
        if queued is not None and queued.state == "done":
            return
        yield {"repeat": False}
        place = next((name for name in MESSAGES if last.get(name)), None)
        if repeat and place is not None:
            yield {place: last[place] + render.note_box("Repeat stopped.")}


def connect_generate(wiring: Wiring, handlers: Handlers, outputs: Iterable[str]) -> None:
    answer = wiring.with_form(Repeating(handlers).generate)
    made = wiring.on_start("generate", answer, (*wiring.fields, "repeat", "live"), (*outputs, "repeat"))
    made.then(None, inputs=[wiring.parts["repeat"]], js=GO_ON, api_visibility="private")
