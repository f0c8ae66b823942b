"""Builds the question whether a picture replaces the thumbnails that its models have already."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import Components


def build_replace(name: str) -> Components:
    parts: Components = {}
    with gr.Row(visible=False, elem_id=f"ld-{name}-replace", elem_classes="ld-actions") as parts[f"{name}_replace"]:
        parts[f"{name}_replace_words"] = gr.HTML("")
        parts[f"{name}_replaced"] = gr.Button("Replace", variant="stop", size="sm", min_width=90)
        parts[f"{name}_kept"] = gr.Button("Keep", size="sm", min_width=90)
    return parts
