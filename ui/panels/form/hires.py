"""Builds the section of HiresFix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.fields import AUTOMATIC, RANGES
from ui.panels.form.choices import SAMPLER_CHOICES, SCHEDULER_CHOICES
from ui.panels.inputs import (
    Components,
    file_choice,
    share,
)
from ui.panels.sections import section


def build_hires(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with section("hires_panel", values, parts):
        parts["hires"] = gr.Checkbox(values["hires"], label="HiresFix: enlarge, then sample a second time")
        with gr.Row():
            parts["hires_scale"] = gr.Slider(
                *RANGES["hires_scale"], values["hires_scale"], step=0.05, label="Enlarge by"
            )
            parts["hires_denoise"] = share(values["hires_denoise"], "HiresFix denoise")
        with gr.Row():
            methods, chosen = lists["hires_method"], values["hires_method"]
            parts["hires_method"] = file_choice(methods, chosen, "Upscaler", info="of pictures or latents")
            parts["hires_steps"] = gr.Number(
                values["hires_steps"], label="HiresFix steps", info="0: as above", precision=0, min_width=110
            )
        with gr.Row():
            parts["hires_sampler"] = gr.Dropdown(
                [("As above", AUTOMATIC), *SAMPLER_CHOICES], value=values["hires_sampler"], label="HiresFix sampler"
            )
            parts["hires_scheduler"] = gr.Dropdown(
                [("As above", AUTOMATIC), *SCHEDULER_CHOICES],
                value=values["hires_scheduler"],
                label="HiresFix scheduler",
            )
        with gr.Row():
            for name, label, empty in (
                ("cfg", "CFG", "as above"),
                ("width", "width", "auto"),
                ("height", "height", "auto"),
            ):
                parts[f"hires_{name}"] = gr.Number(
                    values[f"hires_{name}"], label=f"HiresFix {label}", placeholder=empty, min_width=110
                )
        parts["hires_keep"] = gr.Checkbox(values["hires_keep"], label="Keep the first pass too")
        gr.HTML(
            '<p class="ld-status">The HiresFix button under a finished picture uses these settings too. With a '
            "latent upscaler, it first encodes the picture.</p>"
        )
    return parts
