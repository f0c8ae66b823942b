"""Builds the settings of a mask, and the sides of outpainting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from modules.core.colours import MOST_TOLERANCE
from modules.generation.options import MASK_CONTENTS, InitImage
from modules.images.methods import IMAGE_MODES
from ui.fields import OUTPAINT
from ui.panels.inputs import Components, choice
from ui.panels.picture_fields import PictureFile


def build_mask(values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Row():
        parts["resize"] = choice(IMAGE_MODES, values["resize"], "Resize")
        parts["mask_content"] = choice(MASK_CONTENTS, values["mask_content"], "Masked part starts from")
        parts["mask_blur"] = gr.Number(values["mask_blur"], label="Mask blur", precision=0, min_width=90)
    with gr.Row():
        for name, label, info in (
            ("mask_soft", "Soft edge", "the edge blends step by step"),
            ("mask_invert", "Invert mask", "repaints what is not painted"),
        ):
            parts[name] = gr.Checkbox(values[name], label=label, info=info, min_width=140)
    with gr.Row():
        for name, label, info in (
            ("only_masked", "Only masked", "enlarges that part"),
            ("each_part", "Each part by itself", "enlarges one after the other"),
        ):
            parts[name] = gr.Checkbox(values[name], label=label, info=info, min_width=140)
        parts["mask_padding"] = gr.Number(values["mask_padding"], label="Padding", precision=0, min_width=90)
    parts["mask_file"] = PictureFile(
        label="Mask file: white is repainted (scaled to the picture)",
        type="filepath",
        sources=["upload", "clipboard"],
        height=140,
        buttons=[],
        elem_id="ld-mask-file",
    )
    with gr.Row(equal_height=False):
        parts["mask_colour"] = gr.ColorPicker("#ff0000", label="Colour", min_width=90)
        parts["mask_tolerance"] = gr.Slider(
            0, MOST_TOLERANCE, InitImage.mask_tolerance, step=1, label="Tolerance", min_width=160
        )
        parts["mask_by_colour"] = gr.Button("Mask this colour", size="sm", min_width=120, elem_id="ld-mask-by-colour")
    return parts


def build_outpainting(values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Row(elem_id="ld-outpaint"):
        for name in OUTPAINT:
            side = name.removeprefix("outpaint_").capitalize()
            parts[name] = gr.Number(values[name], label=side, precision=0, step=8, minimum=0, min_width=70)
        parts["outpaint_seam"] = gr.Number(values["outpaint_seam"], label="Seam", precision=0, minimum=0, min_width=70)
    gr.HTML(
        '<p class="ld-status">Pixels to add on each side, in steps of 8. The seam is how far the old picture is '
        "repainted, too. A denoise of 0.9 or more suits a new area.</p>"
    )
    return parts
