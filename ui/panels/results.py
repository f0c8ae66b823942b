"""Builds the right column: progress, pictures, comparison, history and help, as Gradio components by name."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from modules.tasks.axes import VARIABLES
from ui.panels.form import Components

PICTURES, COMPARE, HISTORY, HELP = "pictures", "compare", "history", "help"
VARIABLE_CHOICES = [(variable.label, name) for name, variable in VARIABLES.items()]
EMPTY = """<div class="ld-empty"><b>Your pictures appear here</b>
Write a prompt and press Generate, or Ctrl+Enter. Tick Stable-Fast to make many pictures faster.</div>"""
DEMO_ONLY = """<div class="ld-message ld-note">Only the small demo model is installed, which draws simple shapes.
<b>Help</b> explains how to get a real checkpoint.</div>"""


def build_panels(help_text: str, build_first_run: Callable[[], Components], *, demo_only: bool) -> Components:
    parts: Components = {"stage": gr.HTML("", elem_id="ld-stage", apply_default_css=False)}
    with gr.Tabs(selected=PICTURES, elem_id="ld-panels") as parts["panels"]:
        with gr.Tab("Pictures", id=PICTURES) as parts["pictures_tab"]:
            parts["empty"] = gr.HTML(EMPTY)
            parts["first_hint"] = gr.HTML(DEMO_ONLY, visible=demo_only, elem_id="ld-first-hint")
            parts["gallery"] = build_gallery("Pictures", "ld-gallery", visible=False)
            parts |= build_details("picture")
        with gr.Tab("Compare", id=COMPARE):
            parts |= build_comparison()
        with gr.Tab("History", id=HISTORY) as parts["history_tab"]:
            parts |= build_history()
        with gr.Tab("Help", id=HELP):
            parts |= build_first_run()
            gr.Markdown(help_text)
    parts["task"] = gr.Textbox(visible="hidden", label="Request", elem_id="ld-task")
    parts["remembered"] = gr.Textbox(visible="hidden", label="Remembered form")
    parts["paths"] = gr.State([])
    return parts


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
        with gr.Row():
            for action, label in (
                ("use", "Use settings"),
                ("init", "Image to image"),
                ("control", "ControlNet"),
                ("hires", "HiresFix"),
                ("delete", "Delete…"),
            ):
                parts[f"{name}_{action}"] = gr.Button(
                    label, size="sm", min_width=90, elem_id=f"ld-{name}-{action}", scale=1
                )
        with gr.Row(visible=False, elem_id=f"ld-{name}-confirm") as parts[f"{name}_confirm"]:
            gr.HTML('<p class="ld-words">Delete this file permanently?</p>')
            parts[f"{name}_confirmed"] = gr.Button(
                "Delete it", variant="stop", size="sm", min_width=90, elem_id=f"ld-{name}-confirmed"
            )
            parts[f"{name}_keep"] = gr.Button("Keep it", size="sm", min_width=90)
        parts[f"{name}_message"] = gr.HTML("")
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


def build_comparison() -> Components:
    parts: Components = {"compare_message": gr.HTML("", elem_id="ld-compare-message")}
    gr.Markdown("#### With and without Stable-Fast\nMakes the form's first picture both ways, and measures both.")
    parts["compare"] = gr.Button("Compare", variant="primary", elem_id="ld-compare")
    parts["slider"] = gr.ImageSlider(
        label="Without Stable-Fast (left) and with it (right)",
        type="filepath",
        format="png",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        elem_id="ld-slider",
    )
    parts["compare_result"] = gr.Textbox(
        label="Measured", visible=False, lines=4, interactive=False, elem_classes="ld-text", elem_id="ld-compare-result"
    )
    gr.Markdown(
        "#### X/Y grid\nVaries the form's request along one or two options. Put commas between values (`10, 20, 30`); "
        "whole numbers may be ranges (`1-4`)."
    )
    with gr.Row():
        parts["across"] = gr.Dropdown(VARIABLE_CHOICES, value="steps", label="Columns", min_width=140)
        parts["across_values"] = gr.Textbox("10, 20, 30", label="Values of the columns", min_width=180, scale=2)
    with gr.Row():
        parts["down"] = gr.Dropdown([("Nothing", ""), *VARIABLE_CHOICES], value="cfg", label="Rows", min_width=140)
        parts["down_values"] = gr.Textbox("4, 7", label="Values of the rows", min_width=180, scale=2)
    parts["grid"] = gr.Button("Make the grid", variant="primary", elem_id="ld-grid")
    parts["sheet"] = build_gallery("Grid", "ld-sheet", visible=False, columns=1)
    return parts


def build_history() -> Components:
    parts: Components = {}
    with gr.Row():
        parts["search"] = gr.Textbox(
            label="Search", placeholder="words of the prompt, a seed, a model…", scale=4, elem_id="ld-search"
        )
        parts["newer"] = gr.Button("Newer", size="sm", elem_classes="ld-small", min_width=60, scale=0)
        parts["older"] = gr.Button("Older", size="sm", elem_classes="ld-small", min_width=60, scale=0)
    parts["history_words"] = gr.HTML("", elem_id="ld-history-words")
    parts["history_gallery"] = build_gallery("History", "ld-history", columns=4)
    parts |= build_details("history")
    parts["page"] = gr.State(0)
    parts["history_paths"] = gr.State([])
    return parts


def build_header(version: str) -> Components:
    parts: Components = {}
    with gr.Row(elem_id="ld-header"):
        gr.HTML(f"<h1>LightDiffusion-Next <span>with Stable-Fast</span> <small>{version}</small></h1>", min_width=280)
        with gr.Row():
            parts["memory"] = gr.HTML('<p class="ld-memory">No model is loaded yet.</p>', elem_id="ld-memory", scale=4)
            parts["free"] = gr.Button("Free memory", size="sm", min_width=100, scale=0, elem_id="ld-free")
    return parts
