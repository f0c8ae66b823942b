"""Builds the fields of sampling, and Stable-Fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.panels.form.choices import SAMPLER_CHOICES, SCHEDULER_CHOICES
from ui.panels.form.numbers import number_with_slider
from ui.panels.inputs import (
    Components,
    level_choices,
    small_button,
)


def build_speed(values: Mapping[str, Any], *, gpu: bool) -> Components:
    parts: Components = {}
    with gr.Row(elem_id="ld-speed"):
        parts["stable_fast"] = gr.Checkbox(
            values["stable_fast"], label="Stable-Fast", container=True, elem_id="ld-stable-fast", scale=1
        )
        parts["level"] = gr.Dropdown(
            level_choices(gpu=gpu),
            value=values["level"],
            show_label=False,
            label="Stable-Fast level",
            container=True,
            scale=2,
        )
    parts["stable_fast_status"] = gr.HTML("", elem_id="ld-stable-fast-status")
    return parts


def build_sampling(values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Column(visible=False) as parts["offer_panel"]:
        parts["offer"] = gr.HTML("", elem_id="ld-offer")
        parts["offer_use"] = gr.Button("Use these settings", size="sm", elem_id="ld-offer-use")
    with gr.Row(elem_id="ld-numbers"):
        for name, label, info in (
            ("steps", "Steps", "of refinement"),
            ("cfg", "CFG", "prompt weight"),
            ("number", "Batch count", "in turn"),
            ("batch", "Batch size", "at once"),
        ):
            step = 0.5 if name == "cfg" else 1
            parts[name] = number_with_slider(name, values[name], label, info, step=step)
    with gr.Row():
        parts["sampler"] = gr.Dropdown(SAMPLER_CHOICES, value=values["sampler"], label="Sampler", min_width=130)
        parts["scheduler"] = gr.Dropdown(SCHEDULER_CHOICES, value=values["scheduler"], label="Scheduler", min_width=130)
    with gr.Row(elem_classes="ld-line"):
        parts["seed"] = gr.Textbox(
            values["seed"], label="Seed", placeholder="random", max_lines=1, min_width=110, elem_id="ld-seed"
        )
        parts["dice"] = small_button("Random", "ld-dice")
        parts["reuse"] = small_button("Last", "ld-reuse")
    return parts
