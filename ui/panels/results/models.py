"""Builds the tab of model cards. The browser's models.js draws them when the tab is opened."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr

from modules.catalog.cards import Card, ModelCards, time_and_size
from modules.core.errors import LightDiffusionError
from modules.core.paths import ModelFolders
from modules.gallery.thumbnails import Thumbnails
from ui.panels.inputs import Components

MOST_PICTURES = 48  # in one answer
FRAME = """<div class="ld-models">
<div class="ld-models-bar">
<label>Kind <select class="ld-models-kind"><option value="loras">LoRAs</option>
<option value="embeddings">Embeddings</option><option value="checkpoints">Checkpoints</option>
<option value="">All</option></select></label>
<label>Folder <select class="ld-models-folder"><option value="">All</option></select></label>
<label class="ld-models-search">Filter <input type="search" placeholder="words of the name, family or tags"></label>
</div>
<p class="ld-status" role="status">Reading the models…</p>
<ul class="ld-models-cards"></ul></div>"""


def build_models_tab(folders: ModelFolders) -> Components:
    """Builds the cards of the files in `folders`; nothing is read before the tab is opened."""
    parts: Components = {}
    parts["cards"] = gr.HTML(
        FRAME,
        js_on_load="ldModels(element, server, trigger)",
        server_functions=server_functions(ModelCards(folders), Thumbnails()),
        apply_default_css=False,
        elem_id="ld-models",
    )
    return parts


def server_functions(cards: ModelCards, thumbnails: Thumbnails) -> list[Callable[[Any], Any]]:
    """Returns what the script asks of the server. Gradio checks the login and sets marks on plain functions only."""

    def list_cards(_: Any) -> dict[str, Any]:
        try:
            return {"cards": [card_data(card) for card in cards.all()]}
        except LightDiffusionError as error:
            return {"error": str(error)}

    def load_pictures(wanted: Any) -> list[str | None]:
        """Takes [kind, name] of each card, and returns the pictures as data URLs; None for one that is not there."""
        pairs = wanted[:MOST_PICTURES] if isinstance(wanted, list) else []
        return [picture_url(cards, thumbnails, pair) for pair in pairs]

    return [list_cards, load_pictures]


def card_data(card: Card) -> dict[str, Any]:
    """Returns what the script draws; of the picture only its time, so that a new one is loaded."""
    return {**asdict(card), "picture": card.picture and str(time_and_size(card.picture)[0])}


def picture_url(cards: ModelCards, thumbnails: Thumbnails, pair: Any) -> str | None:
    """Returns the thumbnail of a listed model file. A damaged picture leaves the card with its plain tile."""
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(word, str) for word in pair):
        return None
    try:
        path = cards.picture(*pair)
        data = None if path is None else thumbnails.jpeg(path)
    except LightDiffusionError:
        return None
    return None if data is None else f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
