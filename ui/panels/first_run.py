"""Shows help while the demos are the only checkpoints: where to put another one, and a button to download one."""

from __future__ import annotations

import gradio as gr

from modules.catalog.starter import StarterDownload
from ui.panels.inputs import Components

WORDS = """### Your own checkpoint
Only the small demo models are installed. Put a Stable Diffusion 1.x, 2.x or XL checkpoint (`.safetensors`) in

`{folder}`

then press **Rescan** beside the checkpoint list and choose it. Nothing is ever downloaded automatically.

Or download one: **{title}**, `{name}`, licence **{licence}**. The first button asks the server for the file's size and
SHA-256 and shows them; nothing is downloaded before you press the second.
"""


def build_first_run(starter: StarterDownload, *, visible: bool) -> Components:
    model = starter.model
    words = WORDS.format(folder=starter.target.parent, title=model.title, name=model.name, licence=model.licence)
    parts: Components = {}
    with gr.Column(visible=visible, elem_id="ld-first-run") as parts["first_run"]:
        gr.Markdown(words)
        parts["starter_ask"] = gr.Button("Show size and hash", size="sm", elem_id="ld-starter-ask")
        parts["starter_offer"] = gr.HTML("", elem_id="ld-starter-offer")
        parts["starter_accept"] = gr.Button(visible=False, variant="primary", elem_id="ld-starter-accept")
        parts["starter_stop"] = gr.Button("Stop the download", visible=False, size="sm", elem_id="ld-starter-stop")
        parts["starter_state"] = gr.HTML("", elem_id="ld-starter-state")
    parts["starter_known"] = gr.State(None)
    return parts
