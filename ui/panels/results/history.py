"""Builds the tab of earlier pictures. The browser's history_several.js marks them, and lets the user choose several."""

from __future__ import annotations

import gradio as gr

from ui.panels.inputs import Components, message_place
from ui.panels.results.pictures import build_details, build_gallery

# The script shows the parts that are hidden here, and fills in the numbers.
SEVERAL = """<div class="ld-several">
<div class="ld-several-bar">
<button type="button" data-part="switch" aria-pressed="false">Choose several</button>
<span data-part="tools" hidden>
<button type="button" data-part="all">All on this page</button>
<button type="button" data-part="none">None</button>
<button type="button" data-part="ask" class="ld-several-stop">Delete…</button>
</span>
<span data-part="count" role="status" class="ld-status"></span>
</div>
<div class="ld-several-bar" data-part="question" hidden>
<span data-part="words" role="status"></span>
<label data-part="also"><input type="checkbox"> <span></span></label>
<button type="button" data-part="delete" class="ld-several-stop"></button>
<button type="button" data-part="keep">Keep them</button>
</div></div>"""


def build_history() -> Components:
    parts: Components = {}
    with gr.Row():
        parts["search"] = gr.Textbox(
            label="Search",
            placeholder="words of the prompt, a seed, a model…",
            max_lines=1,
            min_width=240,  # on a phone it has a line of its own
            scale=4,
            elem_id="ld-search",
        )
        parts["history_day"] = gr.Dropdown(
            choices=[("All days", "")], value="", label="Day", min_width=190, scale=1, elem_id="ld-history-day"
        )
        parts["newer"] = gr.Button("Newer", size="sm", elem_classes="ld-small", min_width=60, scale=0)
        parts["older"] = gr.Button("Older", size="sm", elem_classes="ld-small", min_width=60, scale=0)
    with gr.Row(elem_id="ld-history-line"):
        parts["history_words"] = gr.HTML("", elem_id="ld-history-words")
        parts["history_starred"] = gr.Checkbox(False, label="Starred only", elem_id="ld-history-starred")
    parts["history_several"] = gr.HTML(
        {"names": [], "starred": []},
        html_template=SEVERAL,
        js_on_load="ldSeveral(element, props, watch, trigger)",
        apply_default_css=False,
        elem_id="ld-history-several",
    )
    parts["history_list_message"] = message_place("history_list_message")
    parts["history_gallery"] = build_gallery("History", "ld-history", visible=False, columns=4)
    parts |= build_details("history")
    parts["page"] = gr.State(0)
    parts["history_paths"] = gr.State([])
    return parts
