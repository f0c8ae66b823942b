"""Builds the tab of comparisons and grids."""

from __future__ import annotations

import gradio as gr

from modules.tasks.axes import VARIABLES
from ui.panels.inputs import START, Components, message_place
from ui.panels.results.pictures import build_gallery, build_preview

VARIABLE_CHOICES = [(variable.label, name) for name, variable in VARIABLES.items()]


def build_comparison() -> Components:
    parts: Components = {}
    gr.Markdown("#### With and without Stable-Fast\nMakes the form's first picture both ways, and measures both.")
    parts["compare"] = gr.Button("Compare", variant="primary", elem_id="ld-compare", elem_classes=START)
    parts["compare_message"] = message_place("compare_message")
    parts["slider"] = gr.ImageSlider(
        label="Without Stable-Fast (left) and with it (right)",
        type="filepath",
        format="png",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="ld-slider",
    )
    parts["compare_result"] = gr.Textbox(
        label="Measured", visible=False, lines=4, interactive=False, elem_classes="ld-text", elem_id="ld-compare-result"
    )
    gr.Markdown(
        "#### X/Y grid\nVaries the form's request along one or two options. Put commas between values (`10, 20, 30`); "
        "whole numbers may be ranges (`1-4`)."
    )
    with gr.Row():
        parts["across"] = gr.Dropdown(VARIABLE_CHOICES, value="steps", label="Columns", min_width=140)
        parts["across_values"] = gr.Textbox("10, 20, 30", label="Values of the columns", min_width=180, scale=2)
    with gr.Row():
        parts["down"] = gr.Dropdown([("Nothing", ""), *VARIABLE_CHOICES], value="cfg", label="Rows", min_width=140)
        parts["down_values"] = gr.Textbox("4, 7", label="Values of the rows", min_width=180, scale=2)
    parts["grid"] = gr.Button("Make the grid", variant="primary", elem_id="ld-grid", elem_classes=START)
    parts["grid_message"] = message_place("grid_message")
    parts["compare_preview"] = build_preview()
    parts["sheet"] = build_gallery("Grid", "ld-sheet", visible=False, columns=1)
    return parts
