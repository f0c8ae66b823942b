"""Builds the lower part of the form from its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.fields import OPTIONS
from ui.panels.file_lists import FileLists
from ui.panels.form.controls import build_controls
from ui.panels.form.hires import build_hires
from ui.panels.form.models import build_models, build_refiner
from ui.panels.form.modes import build_modes
from ui.panels.form.presets import build_presets
from ui.panels.form.sampling import build_sampling, build_speed
from ui.panels.inputs import (
    Components,
    message_place,
    option_input,
    precision_choices,
)
from ui.panels.sections import MORE, section


def build_form(files: FileLists, values: Mapping[str, Any], *, gpu: bool = True) -> Components:
    """Builds the lower part of the form, and returns its components by name: fields, buttons and messages."""
    lists = files.lists()
    parts = build_speed(values, gpu=gpu)
    shapes = files.shapes(values["checkpoint"], values["width"], values["height"])
    parts |= build_modes(lists, shapes, values)
    parts |= build_sampling(values)
    parts |= build_models(lists, values)
    parts |= build_refiner(lists, values)
    parts |= build_hires(lists, values)
    parts |= build_controls(lists, values)
    parts |= build_more(values, gpu=gpu)
    parts |= build_presets()
    with gr.Accordion("Restore settings from a picture", open=False):
        parts["restore"] = gr.File(
            label="Drop a picture made here or with AUTOMATIC1111",
            file_types=["image"],
            height=150,
            elem_id="ld-restore",
        )
        parts["restore_message"] = message_place("restore_message")
    return parts


def build_more(values: Mapping[str, Any], *, gpu: bool) -> Components:
    parts: Components = {}
    with section("more_panel", values, parts), gr.Row():
        for name in MORE:
            option, value = OPTIONS[name], values[name]
            if name == "stable_fast_precision":
                names = precision_choices(gpu=gpu)
                parts[name] = gr.Dropdown(names, value=value, label=option.label, min_width=160)
            else:
                parts[name] = option_input(option, value)
    return parts
