"""Builds the upper part of the form: checkpoint, prompts and Generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.panels import prompt_lines
from ui.panels.file_lists import FileLists
from ui.panels.form.styles import build_styles
from ui.panels.inputs import (
    START,
    Components,
    file_choice,
    message_place,
    small_button,
)


def build_request(files: FileLists, values: Mapping[str, Any]) -> Components:
    """Builds the upper part of the form, down to Generate; on a phone, the pictures follow it."""
    return build_prompt(files.lists(), values)


def build_prompt(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Row(elem_classes="ld-line"):
        parts["checkpoint"] = file_choice(lists["checkpoint"], values["checkpoint"], "Checkpoint", scale=8)
        parts["refresh"] = small_button("Rescan", "ld-refresh")
    parts["checkpoint_line"] = gr.HTML("", elem_id="ld-checkpoint-line")
    parts["prompt"] = gr.Textbox(
        values["prompt"],
        label="Prompt",
        lines=4,
        max_lines=10,
        elem_id="ld-prompt",
        placeholder="What the picture shows",
    )
    parts["prompt_length"] = length_place("ld-prompt-length")
    parts["negative_prompt"] = gr.Textbox(
        values["negative_prompt"],
        label="Negative prompt",
        lines=1,
        max_lines=6,
        placeholder="What it should not show",
        elem_id="ld-negative-prompt",
    )
    parts["negative_prompt_length"] = length_place("ld-negative-prompt-length")
    parts |= build_styles(values)
    with gr.Row(elem_id="ld-go"):
        parts["generate"] = gr.Button(
            "Generate", variant="primary", elem_id="ld-generate", elem_classes=START, min_width=120, scale=3
        )
        parts["skip"] = gr.Button(
            "Skip", elem_id="ld-skip", elem_classes="ld-cancel", interactive=False, min_width=60, scale=1
        )
        parts["cancel"] = gr.Button(
            "Cancel", elem_id="ld-cancel", elem_classes="ld-cancel", interactive=False, min_width=90, scale=1
        )
        parts["repeat"] = gr.Checkbox(
            value=False, label="Repeat", elem_id="ld-repeat", container=False, min_width=80, scale=1
        )
        parts["live"] = gr.Checkbox(
            value=False, label="Live", elem_id="ld-live", container=False, min_width=60, scale=1
        )
    parts["message"] = message_place("message")
    parts["count"] = gr.Button("Count", visible="hidden", elem_id="ld-count")  # clicked by a script
    return parts


def length_place(elem_id: str) -> gr.HTML:
    """Builds the line under a prompt that says how long it is, or what is wrong with it."""
    return gr.HTML(prompt_lines.UNCOUNTED, elem_id=elem_id, padding=False)
