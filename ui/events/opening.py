"""Fills a page that opens: one request brings the model files and the last used form.

A browser handles every value that comes with a list of nearly 500 components, so what the page shows already is left
out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gradio as gr

from ui.browser.scripts import FILL_UNTOUCHED, MARK_READY, RECALL_FORM, REMEMBER_FORM
from ui.events.handlers import Handlers, Update, shown_rows
from ui.events.wiring import Wiring
from ui.fields import CONTROL_IMAGES
from ui.panels.file_lists import FileLists

Values = Mapping[str, Any]


class Opening:
    """What an opened page is sent; `built` are the values that the page is built with."""

    def __init__(self, handlers: Handlers, built: Values, filled: Iterable[str]) -> None:
        self._handlers = handlers
        self._filled = tuple(filled)
        self._built = built
        self._lists = FileLists(folders=handlers.folders).lists()
        self._more: list[Callable[[Values], Update]] = []
        self.outputs: list[str] = [*self._lists, *CONTROL_IMAGES.values(), "prompt", "remembered"]
        self.outputs += shown_rows(built)

    def add(self, answer: Callable[[Values], Update], outputs: Iterable[str]) -> None:
        """Lets `answer` take the form's values and return more for the page."""
        self._more.append(answer)
        self.outputs += outputs

    def answer(self, own: str | None) -> Update:
        """Returns the current model files and the last used form: this tab's `own`, or else that of any tab.

        The browser fills in only the fields that still show their initial value, so typed text is not lost.
        """
        handlers = self._handlers
        values = handlers.settings.read(own, handlers.fresh()) if own else handlers.remembered()
        lists = FileLists(folders=handlers.folders).lists().items()
        rows, built = shown_rows(values), shown_rows(self._built)
        update: Update = {
            **{name: values[name] for name in CONTROL_IMAGES.values() if values[name]},
            **{name: gr.update(choices=choices) for name, choices in lists if choices != self._lists[name]},
            **{name: gr.Row(visible=visible) for name, visible in rows.items() if visible != built[name]},
            **handlers.hint(values["checkpoint"]),
            "remembered": self._remembered(values),
        }
        for more in self._more:
            update |= more(values)
        return update

    def _remembered(self, values: Values) -> str:
        now = [values[name] for name in self._filled]
        return json.dumps({"built": [self._built[name] for name in self._filled], "now": now})


def connect_opening(wiring: Wiring, opening: Opening, page: Any, filled: Iterable[str]) -> None:
    parts = wiring.parts
    opened = wiring.on(page.load, opening.answer, ("own_form",), opening.outputs, queue=False, js=RECALL_FORM)
    parts["own_form"].change(None, inputs=[parts["own_form"]], js=REMEMBER_FORM, api_visibility="private")
    shown = [parts[name] for name in filled]
    filling = opened.then(None, [parts["remembered"], *shown], shown, js=FILL_UNTOUCHED, api_visibility="private")
    filling.then(None, js=MARK_READY, api_visibility="private")
