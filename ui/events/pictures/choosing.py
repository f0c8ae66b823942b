"""Handles clicks in a list of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from ui.events.handlers import Update
from ui.events.wiring import QUIET, Wiring

# Events of picture lists, as well as clicks and deletions in the lists, are handled in order.
IN_TURN = {"concurrency_id": "history", "concurrency_limit": 1}


def details_of(panel: str) -> tuple[str, ...]:
    return tuple(f"{panel}_{part}" for part in ("chosen", "text", "details", "confirm", "message", "star"))


def connect_clicks(
    wiring: Wiring,
    gallery: str,
    paths: str,
    answer: Callable[..., Update],
    outputs: Iterable[str],
    inputs: Iterable[str] = (),
) -> None:
    """Calls `answer` with the clicked file of this gallery and the values of `inputs`.

    Gradio passes the index and file name of the click in the gr.SelectData parameter.
    """

    def clicked(event: gr.SelectData, shown: list[str], *values: Any) -> dict[Any, Any]:
        file = shown[event.index] if event.index < len(shown) else ""
        if Path(file).name != event.value["image"]["orig_name"]:  # the list changed before the click arrived
            return gr.skip()
        return wiring.by_component(answer)(file, *values)

    wiring.parts[gallery].select(
        clicked,
        inputs=[wiring.parts[name] for name in (paths, *inputs)],
        outputs=[wiring.parts[name] for name in outputs],
        trigger_mode="multiple",  # Gradio answers a click that it deferred as if it were the one before
        **QUIET,
        **IN_TURN,
    )
