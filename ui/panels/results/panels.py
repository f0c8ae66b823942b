"""Builds the tabs of the right column, with the pictures of the last request in the first."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from ui.panels import render
from ui.panels.file_lists import FileLists
from ui.panels.inputs import Components
from ui.panels.results.comparison import build_comparison
from ui.panels.results.examples import build_examples
from ui.panels.results.extras import build_extras
from ui.panels.results.history import build_history
from ui.panels.results.pictures import build_details, build_gallery, build_preview
from ui.panels.results.repaint import build_repaint

PICTURES, MODELS, EXTRAS, COMPARE, HISTORY, HELP = "pictures", "models", "extras", "compare", "history", "help"
EMPTY = """<div class="ld-empty"><b>Your pictures appear here</b>
Write a prompt and press Generate, or Ctrl+Enter. Tick Stable-Fast to make many pictures faster.</div>"""
DEMO_ONLY = """<div class="ld-message ld-note">Only the small demo models are installed, which draw simple shapes.
<b>Help</b> explains how to get a real checkpoint.</div>"""


def build_panels(
    files: FileLists,
    help_text: str,
    build_first_run: Callable[[], Components],
    build_models_tab: Callable[[], Components],
    *,
    demo_only: bool,
) -> Components:
    parts: Components = {"stage": gr.HTML(render.READY, elem_id="ld-stage", apply_default_css=False)}
    with gr.Tabs(selected=PICTURES, elem_id="ld-panels") as parts["panels"]:
        with gr.Tab("Pictures", id=PICTURES, elem_id="ld-pictures") as parts["pictures_tab"]:
            parts["preview"] = build_preview()
            with gr.Column(elem_id="ld-empty-stage"):
                parts["empty"] = gr.HTML(EMPTY, elem_classes="ld-empty-place")
                parts |= build_examples(visible=demo_only)
            parts["first_hint"] = gr.HTML(DEMO_ONLY, visible=demo_only, elem_id="ld-first-hint")
            parts["gallery"] = build_gallery("Pictures", "ld-gallery", visible=False)
            parts |= build_details("picture")
            parts |= build_repaint()
        with gr.Tab("Models", id=MODELS):
            parts |= build_models_tab()
        with gr.Tab("Extras", id=EXTRAS):
            parts |= build_extras(files)
        with gr.Tab("Compare", id=COMPARE):
            parts |= build_comparison()
        with gr.Tab("History", id=HISTORY) as parts["history_tab"]:
            parts |= build_history()
        with gr.Tab("Help", id=HELP):
            parts |= build_first_run()
            gr.Markdown(help_text)
    parts["task"] = gr.Textbox(visible="hidden", label="Request", elem_id="ld-task")
    parts["last_task"] = gr.Textbox(visible="hidden", label="This tab's last request")
    parts["download"] = gr.Textbox(visible="hidden", label="State of the download")
    parts["remembered"] = gr.Textbox(visible="hidden", label="Remembered form")
    parts["own_form"] = gr.Textbox(visible="hidden", label="This tab's form")
    parts["paths"] = gr.State([])
    return parts
