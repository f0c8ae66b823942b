"""Fills an example of the demo model into the form."""

from __future__ import annotations

from functools import partial

import gradio as gr

from modules.catalog.models import DEMO
from ui.events.handlers import Handlers, Update
from ui.events.wiring import Wiring
from ui.fields import TEXT_MODE
from ui.panels.results.examples import EXAMPLES

STEPS = 20
FILLED = ("checkpoint", "prompt", "negative_prompt", "width", "height", "steps", "mode", "modes")


def connect_examples(wiring: Wiring, handlers: Handlers) -> None:
    for number, words in enumerate(EXAMPLES):
        fill = partial(example, handlers, words)
        wiring.on(wiring.parts[f"example_{number}"].click, fill, (), FILLED, queue=False)


def example(handlers: Handlers, words: str) -> Update:
    """Returns the fields for a text to image request that the demo can draw."""
    return {
        **{"checkpoint": DEMO, "prompt": words, "negative_prompt": "", "steps": STEPS},
        **handlers.native_size(DEMO),
        **{"mode": TEXT_MODE, "modes": gr.Tabs(selected=TEXT_MODE)},
    }
