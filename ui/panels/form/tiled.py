"""Builds the section of the tiled upscale, in image to image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.fields import RANGES
from ui.panels.inputs import Components, file_choice
from ui.panels.render import status_line
from ui.panels.sections import section


def build_tiled(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with section("tiled_panel", values, parts):
        parts["tiled"] = gr.Checkbox(values["tiled"], label="Enlarge the picture, and repaint it in tiles")
        gr.HTML(status_line("For pictures of any size. A low denoise, such as 0.3, keeps what they show."))
        with gr.Row():
            parts["tiled_scale"] = gr.Slider(
                *RANGES["tiled_scale"], values["tiled_scale"], step=0.05, label="Enlarge the picture by", min_width=160
            )
            parts["tiled_method"] = file_choice(lists["tiled_method"], values["tiled_method"], "Enlarge with")
        with gr.Row():
            for name, label in (("tile_width", "Tile width"), ("tile_height", "Tile height")):
                parts[name] = gr.Number(values[name], label=label, placeholder="native", precision=0, min_width=90)
            parts["tiled_overlap"] = gr.Number(values["tiled_overlap"], label="Overlap", precision=0, min_width=90)
    return parts
