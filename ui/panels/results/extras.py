"""Builds the tab that enlarges pictures without a prompt."""

from __future__ import annotations

import gradio as gr

from modules.core.sizes import MAX_SIZE
from ui.panels.file_lists import FileLists
from ui.panels.inputs import START, Components, file_choice, message_place
from ui.panels.results.pictures import build_gallery

BY, TO = "by", "to"


def build_extras(files: FileLists) -> Components:
    parts: Components = {}
    gr.Markdown("#### Enlarge pictures without a prompt\nEach result is saved with the settings of its picture.")
    parts["extras_files"] = gr.File(
        label="Drop one or several pictures",
        file_count="multiple",
        file_types=["image"],
        height=150,
        elem_id="ld-extras-files",
    )
    with gr.Row():
        parts["extras_method"] = file_choice(files.pixel_methods(), "lanczos", "Enlarge with")
        parts["extras_size"] = gr.Radio([("Scale by", BY), ("Scale to", TO)], value=BY, label="Size of the result")
    with gr.Row() as parts["extras_by"]:
        parts["extras_scale"] = gr.Slider(1.0, 8.0, 2.0, step=0.05, label="Times as large")
    with gr.Column(visible=False) as parts["extras_to"]:
        with gr.Row():
            for side in ("width", "height"):
                parts[f"extras_{side}"] = gr.Number(
                    1024, label=f"Result {side}", precision=0, minimum=1, maximum=MAX_SIZE, min_width=90
                )
        parts["extras_crop"] = gr.Checkbox(True, label="Cut off what does not fit this shape")
    parts["extras_run"] = gr.Button("Enlarge", variant="primary", elem_id="ld-extras-run", elem_classes=START)
    parts["extras_message"] = message_place("extras_message")
    parts["extras_gallery"] = build_gallery("Enlarged pictures", "ld-extras", visible=False, columns=3)
    return parts
