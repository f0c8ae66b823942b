"""The Compare tab: both ways at once, and grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.tasks.grid import grid_cells, read_axis
from modules.tasks.kinds import Compared, make_comparison, make_grid
from modules.tasks.task import Ticket
from ui.events.handlers import Handlers, Update
from ui.panels import render
from ui.requests import build_options

MESSAGE = "compare_message"


class Comparing:
    """Uses the form as it is, so that a comparison differs in nothing but what is compared."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def compare(self, values: Mapping[str, Any]) -> Iterator[Update]:
        handlers = self.handlers
        try:
            options = build_options({**values, "stable_fast": True}, handlers.output.folder)
            work = make_comparison(options, handlers.output)
            yield from handlers.run("comparing", work, show_comparison, MESSAGE)
        except LightDiffusionError as error:
            yield {MESSAGE: render.error_box(str(error)), "message": ""}

    def grid(
        self, values: Mapping[str, Any], across: str, across_values: str, down: str, down_values: str
    ) -> Iterator[Update]:
        handlers = self.handlers
        try:
            options = build_options(values, handlers.output.folder)
            columns = read_axis(across, across_values)
            rows = read_axis(down, down_values) if down else None
            grid_cells(options, columns, rows)  # refuses now what would fail in the middle
            yield from handlers.run("grid", make_grid(options, columns, rows, handlers.output), show_grid, MESSAGE)
        except LightDiffusionError as error:
            yield {MESSAGE: render.error_box(str(error)), "message": ""}


def show_comparison(ticket: Ticket) -> Update:
    done = ticket.result
    if not isinstance(done, Compared):
        return {}
    eager, fast = done.comparison.eager, done.comparison.accelerated
    with_it = f"with it ({fast.level}): {fast.steady_seconds:.2f} s (right)"
    label = f"Without Stable-Fast: {eager.steady_seconds:.2f} s (left) · {with_it}"
    return {
        "slider": gr.ImageSlider(value=(str(done.eager), str(done.accelerated)), label=label, visible=True),
        "compare_result": gr.Textbox(value=done.comparison.to_text(), visible=True),
    }


def show_grid(ticket: Ticket) -> Update:
    paths = [str(path) for path in ticket.pictures]
    return {"sheet": gr.Gallery(value=paths, visible=True)} if paths else {}
