"""Builds the form's recurring input components."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules.generation.option_table import SHARE, STABLE_FAST_LEVELS, Option
from ui.fields import AUTOMATIC

Components = dict[str, Any]

# What each precision is for.
PRECISION_NOTES = {
    "off": "as the model",
    "fp16-accumulate": "sums in fp16, for GeForce",
    "fp8": "products in fp8, RTX 40 and newer",
    "int8": "products in int8, RTX 30 and newer",
    "fp8-weights": "half the UNet's memory",
    "int8-weights": "half the UNet's memory, more exact",
}
START = "ld-start"  # the class of a button that starts a request


def file_choice(
    names: Any, value: Any, label: str, scale: int | None = None, *, info: str | None = None
) -> gr.Dropdown:
    """Builds a list that accepts unlisted names; generating reports a missing file and suggests similar names."""
    return gr.Dropdown(names, value=value, label=label, info=info, allow_custom_value=True, scale=scale, min_width=200)


def choice(names: tuple[str, ...], value: str, label: str) -> gr.Dropdown:
    return gr.Dropdown(list(names), value=value, label=label, min_width=110)


def level_choices(*, gpu: bool) -> list[tuple[str, str]]:
    """Returns the Stable-Fast levels; the labels of those that capture CUDA graphs say if there is no GPU for it."""
    missing = () if gpu else ("graph", "full")
    return [
        (f"Level: {name}{' (no NVIDIA GPU)' if name in missing else ''}", name)
        for name in STABLE_FAST_LEVELS
        if name != "off"
    ]


def precision_choices(*, gpu: bool) -> list[tuple[str, str]]:
    """Returns the Stable-Fast precisions with what they are for. Without a GPU, the labels of all but off say so."""
    return [
        (f"{name}: {note}" if gpu or name == "off" else f"{name} (no NVIDIA GPU)", name)
        for name, note in PRECISION_NOTES.items()
    ]


def option_input(option: Option, value: Any) -> Any:
    """Returns a suitable input for the option: a list of its choices, a slider for a share, a text or a number."""
    if option.choices:
        first = [(option.empty, AUTOMATIC)] if option.empty else []
        return gr.Dropdown([*first, *option.choices], value=value, label=option.label, min_width=110)
    if option.limits == SHARE:
        return share(value, option.label)
    if option.kind == "text":
        return gr.Textbox(value, label=option.label, placeholder=option.empty, max_lines=1, min_width=160)
    return gr.Number(value, label=option.label, precision=0 if option.kind == "whole" else None, min_width=90)


def share(value: float, label: str, *, info: str | None = None) -> gr.Slider:
    return gr.Slider(*SHARE, value, step=0.01, label=label, info=info, min_width=160)


def message_place(name: str) -> gr.HTML:
    """Builds the place of a message (see MESSAGES), which takes no room while it is empty."""
    return gr.HTML("", elem_id=f"ld-{name.replace('_', '-')}", elem_classes="ld-message-place")


def small_button(word: str, elem_id: str) -> gr.Button:
    return gr.Button(word, elem_id=elem_id, elem_classes="ld-small", size="sm", min_width=60, scale=0)
