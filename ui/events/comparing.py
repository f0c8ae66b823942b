"""Handles the Compare tab: pictures with and without Stable-Fast, and grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.tasks.axes import grid_cells, read_axis
from modules.tasks.grid import check_sheet
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import Compare, MakeGrid
from ui.events.handlers import Handlers, Update
from ui.requests import build_options


class Comparing:
    """Handlers that use the form's settings unchanged, apart from the setting to compare."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def compare(self, values: Mapping[str, Any]) -> Iterator[Update]:
        handlers = self.handlers
        try:
            options = build_options({**values, "stable_fast": True}, handlers.output.folder)
            yield from handlers.run(Compare(options=options), show_comparison, "compare_message")
        except LightDiffusionError as error:
            yield handlers.refuse(error, "compare_message")

    def grid(
        self, values: Mapping[str, Any], across: str, across_values: str, down: str, down_values: str
    ) -> Iterator[Update]:
        handlers = self.handlers
        try:
            options = build_options(values, handlers.output.folder)
            columns = read_axis(across, across_values)
            rows = read_axis(down, down_values) if down else None
            cells = grid_cells(options, columns, rows)  # rejects invalid cells before the first picture
            check_sheet(cells, columns, rows)
            yield from handlers.run(MakeGrid(options=options, across=columns, down=rows), show_grid, "grid_message")
        except LightDiffusionError as error:
            yield handlers.refuse(error, "grid_message")


def show_comparison(queued: QueuedTask) -> Update:
    comparison, paths = queued.comparison, [str(path) for path in queued.pictures]
    if comparison is None or len(paths) < 2:
        return {}
    eager, fast = comparison.eager, comparison.accelerated
    with_it = f"with it ({fast.level}): {fast.steady_seconds:.2f} s (right)"
    label = f"Without Stable-Fast: {eager.steady_seconds:.2f} s (left) · {with_it}"
    return {
        "slider": gr.ImageSlider(value=(paths[0], paths[1]), label=label, visible=True),
        "compare_result": gr.Textbox(value=comparison.to_text(), visible=True),
    }


def show_grid(queued: QueuedTask) -> Update:
    paths = [str(path) for path in queued.pictures]
    return {"sheet": gr.Gallery(value=paths, visible=True)} if paths else {}
