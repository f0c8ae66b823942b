"""Builds the examples of what the demo model draws, each a button, for the first picture."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import Components

EXAMPLES = (
    "a red circle on a blue background",
    "two small yellow stars on a black background",
    "a large green heart on a pink background",
    "a sunset over the ocean with a sailboat",
    "mountains at night with the moon on the left",
    "a purple triangle, <lora:demo_ink:1>",
)


def build_examples(*, visible: bool) -> Components:
    """Builds the buttons in the order of EXAMPLES. The style hides them while there are pictures."""
    parts: Components = {}
    with gr.Column(visible=visible, elem_id="ld-examples") as parts["examples"]:
        gr.HTML('<p class="ld-words">Or begin with one of these, then press Generate:</p>')
        with gr.Row(elem_classes="ld-chips"):
            for number, words in enumerate(EXAMPLES):
                parts[f"example_{number}"] = gr.Button(words, size="sm", min_width=60, scale=0)
    return parts
