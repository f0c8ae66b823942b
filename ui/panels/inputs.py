"""Builds the form's recurring input components."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules.generation.option_table import SHARE, Option
from ui.fields import AUTOMATIC


def file_choice(names: Any, value: Any, label: str, scale: int | None = None) -> gr.Dropdown:
    """Builds a list that accepts unlisted names; generating reports a missing file and suggests similar names."""
    return gr.Dropdown(names, value=value, label=label, allow_custom_value=True, scale=scale, min_width=160)


def choice(names: tuple[str, ...], value: str, label: str) -> gr.Dropdown:
    return gr.Dropdown(list(names), value=value, label=label, min_width=110)


def option_input(option: Option, value: Any) -> Any:
    """Returns a suitable input for the option: a list of its choices, a slider for a share, a text or a number."""
    if option.choices:
        first = [(option.empty, AUTOMATIC)] if option.empty else []
        return gr.Dropdown([*first, *option.choices], value=value, label=option.label, min_width=110)
    if option.limits == SHARE:
        return share(value, option.label, min_width=110)
    if option.kind == "text":
        return gr.Textbox(value, label=option.label, max_lines=1, min_width=110)
    return gr.Number(value, label=option.label, precision=0 if option.kind == "whole" else None, min_width=90)


def share(value: float, label: str, *, info: str | None = None, min_width: int = 160) -> gr.Slider:
    return gr.Slider(*SHARE, value, step=0.01, label=label, info=info, min_width=min_width)


def small_button(word: str, elem_id: str) -> gr.Button:
    return gr.Button(word, elem_id=elem_id, elem_classes="ld-small", size="sm", min_width=60, scale=0)
