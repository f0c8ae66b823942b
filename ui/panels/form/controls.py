"""Builds the form's ControlNet section: a tab for each slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from modules.controlnet.names import CONTROL_KINDS, PREPROCESSORS
from modules.generation.options import CONTROL_MODES
from ui.fields import AUTOMATIC, CONTROL_SLOTS
from ui.panels.inputs import Components, choice, file_choice, message_place, share
from ui.panels.picture_fields import PictureFile
from ui.panels.sections import section


def build_controls(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with section("control_panel", values, parts):
        parts["control_message"] = message_place("control_message")
        with gr.Tabs():
            for slot in range(1, CONTROL_SLOTS + 1):
                with gr.Tab(f"ControlNet {slot}"):
                    parts |= build_control(slot, lists[f"control_{slot}"], values)
    return parts


def build_control(slot: int, names: Any, values: Mapping[str, Any]) -> Components:
    def field(name: str) -> Any:
        return values[f"control_{slot}_{name}"]

    parts: Components = {}
    with gr.Row():
        parts["image"] = PictureFile(
            label=f"Control picture {slot}",
            type="filepath",
            sources=["upload", "clipboard"],
            height=190,
            min_width=180,
            elem_id=f"ld-control-{slot}",
        )
        with gr.Column(min_width=180):
            net = file_choice(names, values[f"control_{slot}"], f"ControlNet {slot} model")
            parts["preprocessor"] = choice(PREPROCESSORS, field("preprocessor"), f"Preprocessor {slot}")
            parts["mode"] = choice(CONTROL_MODES, field("mode"), f"Mode {slot}")
            kinds = [("Not a union file", AUTOMATIC), *CONTROL_KINDS]
            parts["kind"] = gr.Dropdown(kinds, value=field("kind"), label=f"Kind {slot}", min_width=110)
    parts["map"] = gr.Image(
        label=f"What ControlNet {slot} sees",
        visible=False,
        interactive=False,
        height=190,
        format="png",
        buttons=["fullscreen"],
        elem_id=f"ld-control-map-{slot}",
    )
    with gr.Row():
        parts["strength"] = gr.Number(field("strength"), label=f"Strength {slot}", step=0.05, min_width=110)
        parts["start"] = share(field("start"), f"Start {slot}")
        parts["end"] = share(field("end"), f"End {slot}")
    return {f"control_{slot}": net, **{f"control_{slot}_{name}": part for name, part in parts.items()}}
