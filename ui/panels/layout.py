"""Builds the whole page: the header, the form on the left, and the results on the right."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from modules.catalog.models import has_own_checkpoint
from modules.catalog.starter import StarterDownload
from modules.core.paths import ModelFolders
from modules.version import VERSION
from ui.panels.file_lists import FileLists
from ui.panels.first_run import build_first_run
from ui.panels.form.request import build_request
from ui.panels.form.whole import build_form
from ui.panels.header import build_header
from ui.panels.inputs import Components
from ui.panels.results.models import build_models_tab
from ui.panels.results.panels import build_panels

GUIDE = """### In four steps
1. Write a prompt.
2. Tick **Stable-Fast** when you make more than a few pictures: the first one takes longer, the next ones are faster.
3. Set size, steps and anything else you like; the defaults are sensible.
4. Press **Generate** or Ctrl+Enter. Pictures are saved in `{output}`.

### Good to know
- **Seed**: empty means a new random one each time. *Last* takes the last picture's seed, *Random* empties the field.
- **LoRA**: choose up to four, or write `<lora:name:0.8>` in the prompt. Embeddings work by name.
- **Cancel** stops after the current step and keeps the pictures that are finished.
- **Stable-Fast level**: *full* is the fastest. *graph* gives bit for bit the same picture as without; *fused* needs
the least GPU memory, and is used on a CPU. The line below the box shows the active level and why.
- **History** searches everything in the output folder; a picture's settings can be used again from there.
- Other folders with models: see `model_folders.example.toml`.
"""


def build_page(
    folders: ModelFolders, output: Path, starter: StarterDownload, values: Mapping[str, Any], *, gpu: bool
) -> Components:
    """Builds all components in the open Blocks and returns them by name; `output` is the folder of the pictures."""
    parts = build_header(VERSION)
    files = FileLists(folders=folders)
    with gr.Row(equal_height=False, elem_id="ld-body"):  # a grid: see the style
        with gr.Column(elem_id="ld-request", elem_classes="ld-panel"):
            parts |= build_request(files, values)
        with gr.Column(elem_id="ld-form", elem_classes="ld-panel"):
            parts |= build_form(files, values, gpu=gpu)
        with gr.Column(elem_id="ld-results"):
            demo_only = not has_own_checkpoint(folders)
            help_text = GUIDE.format(output=output)
            first_run, models = partial(build_first_run, starter, visible=demo_only), partial(build_models_tab, folders)
            parts |= build_panels(files, help_text, first_run, models, demo_only=demo_only)
    parts["clock"] = gr.Timer(4.0)
    return parts
