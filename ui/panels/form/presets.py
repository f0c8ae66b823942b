"""Builds the presets: one field for the name, and what can be done with it."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import Components, message_place


def build_presets() -> Components:
    parts: Components = {}
    with gr.Accordion("Presets", open=False, elem_id="ld-presets"):
        parts["presets"] = gr.Dropdown(
            [],
            value=None,
            allow_custom_value=True,
            label="Name of the preset",
            info="Choose one, or write a new name to save the form. Pictures are not part of it.",
            elem_id="ld-presets-name",
        )
        with gr.Row(elem_classes="ld-actions"):
            for action, label in (("load", "Use preset"), ("save", "Save preset"), ("delete", "Delete preset…")):
                parts[f"presets_{action}"] = gr.Button(
                    label,
                    size="sm",
                    min_width=90,
                    elem_id=f"ld-presets-{action}",
                    variant="stop" if action == "delete" else "secondary",
                )
        with gr.Row(visible=False, elem_id="ld-presets-confirm", elem_classes="ld-actions") as parts["presets_confirm"]:
            gr.HTML('<p class="ld-words">Delete this preset permanently?</p>')
            parts["presets_confirmed"] = gr.Button(
                "Delete it", variant="stop", size="sm", min_width=90, elem_id="ld-presets-confirmed"
            )
            parts["presets_keep"] = gr.Button("Keep it", size="sm", min_width=90)
        parts["presets_message"] = message_place("presets_message")
    return parts
