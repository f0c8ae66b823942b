"""Handles a click on a checkpoint's card. LoRAs and embeddings go into the prompt in the browser (models.js)."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.browser.scripts import TELL_CHECKPOINT
from ui.events.handlers import Handlers
from ui.events.wiring import QUIET, Wiring

CHOSEN = ("checkpoint", "width", "height")


def connect_cards(wiring: Wiring, handlers: Handlers) -> None:
    checkpoint = wiring.parts["checkpoint"]
    checkpoint.change(None, inputs=[checkpoint], js=TELL_CHECKPOINT, api_visibility="private")
    wiring.parts["cards"].select(
        choose_in(wiring, handlers),
        inputs=[wiring.parts["width"], wiring.parts["height"]],
        outputs=[wiring.parts[name] for name in CHOSEN],
        trigger_mode="multiple",  # a click carries its card
        queue=False,
        **QUIET,
    )


def choose_in(wiring: Wiring, handlers: Handlers) -> Any:
    """Returns a handler that chooses the clicked checkpoint; Gradio passes its name in a gr.SelectData parameter."""

    def choose(width: int | None, height: int | None, event: gr.SelectData) -> dict[Any, Any]:
        if event.value not in handlers.folders.list("checkpoints"):
            return gr.skip()
        update = {"checkpoint": event.value, **handlers.fitting_size(event.value, width, height)}
        return {wiring.parts[name]: value for name, value in update.items()}

    return choose
