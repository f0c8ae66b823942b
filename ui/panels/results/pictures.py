"""Builds galleries, and the panel of the selected picture."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import START, Components, message_place
from ui.panels.results.thumbnail import build_replace

STAR, UNSTAR = "☆ Star", "★ Unstar"


def build_preview() -> gr.HTML:
    return gr.HTML("", elem_classes="ld-preview-place", apply_default_css=False)


def build_gallery(label: str, elem_id: str, *, visible: bool = True, columns: int = 4) -> gr.Gallery:
    """Builds a gallery that shows files unchanged: a displayed or downloaded PNG includes its metadata."""
    return gr.Gallery(
        label=label,
        show_label=False,
        columns=columns,
        height="auto",
        object_fit="contain",
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        visible=visible,
        elem_id=elem_id,
    )


def build_details(name: str) -> Components:
    """Builds the panel of the selected picture, with its settings and buttons. It is hidden until one is selected."""
    parts: Components = {}
    with gr.Column(visible=False, elem_id=f"ld-{name}-details") as parts[f"{name}_details"]:
        with gr.Row(elem_classes="ld-actions"):
            for action, label in (
                ("use", "Use settings"),
                ("star", STAR),
                ("init", "Image to image"),
                ("repaint", "Repaint a part…"),
                ("extras", "Extras"),
                ("control", "ControlNet"),
                ("hires", "HiresFix"),
                ("thumbnail", "As thumbnail"),
                ("delete", "Delete…"),
            ):
                parts[f"{name}_{action}"] = gr.Button(
                    label,
                    size="sm",
                    min_width=90,
                    elem_id=f"ld-{name}-{action}",
                    elem_classes=START if action == "hires" else None,
                    variant="stop" if action == "delete" else "secondary",
                )
        with gr.Row(visible=False, elem_id=f"ld-{name}-confirm", elem_classes="ld-actions") as parts[f"{name}_confirm"]:
            parts[f"{name}_question"] = gr.HTML("")
            parts[f"{name}_confirmed"] = gr.Button(
                "Delete it", variant="stop", size="sm", min_width=90, elem_id=f"ld-{name}-confirmed"
            )
            parts[f"{name}_keep"] = gr.Button("Keep it", size="sm", min_width=90)
        parts |= build_replace(name)
        parts[f"{name}_message"] = message_place(f"{name}_message")
        parts[f"{name}_text"] = gr.Textbox(
            label="Settings in the file",
            lines=3,
            max_lines=8,
            interactive=False,
            buttons=["copy"],
            elem_classes="ld-text",
            elem_id=f"ld-{name}-text",
        )
    parts[f"{name}_chosen"] = gr.State("")
    return parts
