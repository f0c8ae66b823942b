"""The whole page: header, form on the left, results on the right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from modules.core.paths import ModelFolders
from modules.generation.catalog import has_own_checkpoint
from modules.version import VERSION
from ui.form import Choices, Components, build_form
from ui.panels import build_header, build_panels

FIRST_RUN = """### Your own checkpoint
Only the small demo model is here. Put a Stable Diffusion 1.x or 2.x checkpoint (`.safetensors`) into

`{folder}`

then press **Rescan** beside the checkpoint list and choose it. Nothing is ever downloaded by itself.

"""
GUIDE = """### In four steps
1. Write a prompt.
2. Tick **Stable-Fast** when you make more than a few pictures: the first one takes longer, the next ones are faster.
3. Set size, steps and what else you like; the defaults are sensible.
4. Press **Generate** or Ctrl+Enter. Pictures are saved in `{output}`.

### Good to know
- **Seed**: empty means a new random one each time. *Last* takes the last picture's seed, *Random* empties the field.
- **LoRA**: choose up to four, or write `<lora:name:0.8>` into the prompt. Embeddings work by name.
- **Cancel** stops after the current step and keeps the pictures that are finished.
- **Stable-Fast level**: *graph* gives the same picture as without, bit for bit; *fused* and *full* are faster and
  differ by rounding only. The line below the box says what is in force and why.
- **History** searches everything in the output folder; a picture's settings can be used again from there.
- Other folders with models: see `model_folders.example.toml`.
"""


def help_text(folders: ModelFolders, output: object) -> str:
    guide = GUIDE.format(output=output)
    if has_own_checkpoint(folders):
        return guide
    return FIRST_RUN.format(folder=folders.folders("checkpoints")[0]) + guide


def build_page(folders: ModelFolders, output: object, values: Mapping[str, Any]) -> Components:
    """All components by name, inside the Blocks that is open."""
    parts = build_header(VERSION)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_id="ld-form"):
            parts |= build_form(Choices(folders=folders), values)
        with gr.Column(scale=6, min_width=320, elem_id="ld-results"):
            parts |= build_panels(help_text(folders, output))
    parts["clock"] = gr.Timer(4.0)
    return parts
