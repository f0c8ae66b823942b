"""Connects a button that starts a request, so that no click on it is lost (in the browser: start_request.js)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ui.events.wiring import Wiring
from ui.panels.inputs import START


def connect_start(
    wiring: Wiring,
    name: str,
    answer: Callable[..., Any],
    inputs: Iterable[str],
    outputs: Iterable[str],
) -> Any:
    """Lets the button with this name start a request, and tells the browser when Gradio knows of its end."""
    button = wiring.parts[name]
    if START not in button.elem_classes:
        raise ValueError(f"The button {name} needs the class {START}.")
    started = wiring.on(button.click, answer, inputs, outputs, trigger_mode="once")
    ended = f"() => {{ window.ldStart.ended('{button.elem_id}'); }}"
    for end in (started.then, started.failure):  # the first does not come after an answer that failed
        end(None, js=ended, api_visibility="private")
    return started
