"""Builds text to image and image to image: sizes, the picture to start from and its mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.fields import IMAGE_MODE, TEXT_MODE
from ui.panels.form.mask import build_mask, build_outpainting
from ui.panels.form.numbers import number_with_slider
from ui.panels.form.tiled import build_tiled
from ui.panels.inputs import Components, message_place, share, small_button
from ui.panels.picture_fields import mask_editor
from ui.panels.render import status_line


def build_modes(lists: Components, shapes: Mapping[str, Any], values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Tabs(selected=TEXT_MODE, elem_id="ld-modes") as parts["modes"]:
        with (
            gr.Tab("Text to image", id=TEXT_MODE) as parts["text_tab"],
            gr.Row(elem_id="ld-size", elem_classes="ld-line"),
        ):
            for name in ("width", "height"):
                parts[name] = number_with_slider(name, values[name], name.capitalize(), step=8)
            parts["preset"] = gr.Dropdown(**shapes, label="Shape", min_width=150, scale=2)
            parts["swap"] = small_button("Swap", "ld-swap")
        with gr.Tab("Image to image", id=IMAGE_MODE) as parts["image_tab"]:
            parts |= build_image_mode(lists, values)
    parts["mode"] = gr.State(TEXT_MODE)
    return parts


def build_image_mode(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {"init_message": message_place("init_message")}
    parts["editor"] = mask_editor("Picture and mask", "ld-editor", sources=("upload", "clipboard"))
    parts["editor_path"] = gr.Textbox(visible="hidden", label="Picture for the editor")
    gr.HTML(status_line("Paint over the part to repaint, or paint nothing to change the whole picture."))
    with gr.Row():
        parts["denoise"] = share(values["denoise"], "Denoise", info="0 keeps the picture, 1 ignores it")
        parts["keep_size"] = gr.Checkbox(
            values["keep_size"], label="Keep the picture's size", info="else use width and height", min_width=140
        )
    with gr.Accordion("Resizing and mask", open=False) as parts["mask_panel"]:
        parts |= build_mask(values)
    with gr.Accordion("Outpainting", open=False):
        parts |= build_outpainting(values)
    return parts | build_tiled(lists, values)
