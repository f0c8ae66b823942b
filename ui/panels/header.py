"""Builds the line above the form: the name, the version, and the memory in use."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import Components


def build_header(version: str) -> Components:
    parts: Components = {}
    with gr.Row(elem_id="ld-header"):
        gr.HTML(f"<h1>LightDiffusion-Next <span>with Stable-Fast</span> <small>{version}</small></h1>", min_width=280)
        with gr.Row():
            parts["memory"] = gr.HTML('<p class="ld-memory">No model is loaded yet.</p>', elem_id="ld-memory", scale=4)
            parts["free"] = gr.Button("Free memory", size="sm", min_width=100, scale=0, elem_id="ld-free")
    return parts
