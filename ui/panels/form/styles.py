"""Builds the section of styles, and of wildcards for the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.panels.inputs import Components, message_place
from ui.panels.sections import section

NOT_LOOKED = "<p class='ld-status'>Looking for wildcards…</p>"


def build_styles(values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with section("styles_panel", values, parts):
        parts["styles"] = gr.Dropdown(
            values["styles"],
            value=values["styles"],
            multiselect=True,
            allow_custom_value=True,  # the list is read when the section opens
            label="Styles",
            info="added to both prompts of each picture",
        )
        with gr.Row():
            parts["styles_apply"] = gr.Button("Apply to prompt", size="sm", min_width=90, elem_id="ld-styles-apply")
            parts["styles_delete"] = gr.Button(
                "Delete…", size="sm", min_width=90, variant="stop", elem_id="ld-styles-delete"
            )
        with gr.Row(visible=False) as parts["styles_confirm"]:
            gr.HTML('<p class="ld-words">Delete the chosen styles from styles.csv?</p>')
            parts["styles_confirmed"] = gr.Button(
                "Delete them", variant="stop", size="sm", min_width=90, elem_id="ld-styles-confirmed"
            )
            parts["styles_keep"] = gr.Button("Keep them", size="sm", min_width=90)
        with gr.Row(elem_classes="ld-line"):
            parts["style_name"] = gr.Textbox(
                label="Name of a new style", placeholder="saves both prompts", max_lines=1, min_width=110
            )
            parts["style_save"] = gr.Button(
                "Save as style", elem_id="ld-style-save", elem_classes="ld-small", size="sm", min_width=110, scale=0
            )
        parts["styles_message"] = message_place("styles_message")
        parts["wildcards"] = gr.HTML(NOT_LOOKED, elem_id="ld-wildcards")
    return parts
