"""Builds numbers with a slider for their usual values. A number may be typed beyond them, which gr.Slider forbids."""

from __future__ import annotations

from html import escape

import gradio as gr

USUAL = {  # smallest, largest, step
    "steps": (1, 60, 1),
    "cfg": (1, 20, 0.5),
    "number": (1, 16, 1),
    "batch": (1, 8, 1),
    "width": (64, 2048, 64),
    "height": (64, 2048, 64),
}


def number_with_slider(name: str, value: float, label: str, info: str | None = None, *, step: float = 1) -> gr.Number:
    low, high, stride = USUAL[name]
    with gr.Column(min_width=70, elem_classes="ld-number"):
        number = gr.Number(
            value,
            label=label,
            info=info,
            min_width=70,
            precision=None if name == "cfg" else 0,
            step=step,
            elem_id=f"ld-number-{name}",
        )
        gr.HTML(
            f'<input type="range" class="ld-slider" data-field="{name}" aria-label="{escape(label)}, slider" '
            f'min="{low}" max="{high}" step="{stride}" value="{value:g}">',
            padding=False,
        )
    return number
