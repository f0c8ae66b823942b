"""Builds the panel where parts of a finished picture are marked and repainted."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import START, Components, message_place, share
from ui.panels.picture_fields import mask_editor
from ui.panels.render import status_line

DENOISE = 0.4
HOW = "Paint over one or more parts. Each is enlarged, repainted and put back. Strokes that touch are one part."


def build_repaint() -> Components:
    parts: Components = {}
    with gr.Column(visible=False, elem_id="ld-repaint") as parts["repaint_panel"]:
        gr.HTML(status_line(HOW))
        parts["repaint_message"] = message_place("repaint_message")
        parts["repaint_editor"] = mask_editor("Parts to repaint", "ld-repaint-editor")
        parts["repaint_prompt"] = gr.Textbox(
            label="What these parts show", placeholder="As in the picture's prompt", max_lines=3
        )
        parts["repaint_denoise"] = share(DENOISE, "Change", info="0 keeps the parts, 1 ignores them")
        with gr.Row():
            parts["repaint_start"] = gr.Button(
                "Repaint", variant="primary", size="sm", elem_id="ld-repaint-start", elem_classes=START
            )
            parts["repaint_close"] = gr.Button("Close", size="sm", elem_id="ld-repaint-close")
    parts["repaint_path"] = gr.State("")
    parts["repaint_editor_path"] = gr.Textbox(visible="hidden", label="Picture to repaint")
    return parts
