"""Deletes the pictures of the history that the user chose together (in the browser: history_several.js)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.core.typed import Unreadable, read
from ui.events.handlers import Handlers, Update
from ui.events.pictures.choosing import IN_TURN
from ui.events.pictures.history import HISTORY, LOOKING, Filters, HistoryPages, with_filters
from ui.events.wiring import QUIET, Wiring
from ui.panels import render


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the script sends: the names of pictures, as in the list of stars, and whether to delete starred ones too."""

    names: tuple[str, ...]
    starred: bool


class Several:
    """Handles the confirmed deletion."""

    def __init__(self, handlers: Handlers) -> None:
        self.history = handlers.history
        self.pages = HistoryPages(handlers)

    def delete(self, filters: Filters, page: int, shown: list[str], chosen: Chosen) -> Update:
        """Deletes what was chosen and is still there, without the pictures that are starred by now."""
        there = [name for name in chosen.names if (self.history.folder / name).exists()]
        try:
            spared = frozenset() if chosen.starred else self.history.stars.names()
            self.history.delete_all([self.history.folder / name for name in there if name not in spared])
        except LightDiffusionError as error:
            message = render.error_box(f"{self.words(there)} {error}")
        else:
            message = render.note_box(self.words(there))
        return self.pages.look(filters, page, shown) | {"history_list_message": message}

    def words(self, names: Collection[str]) -> str:
        """Says how many of these pictures are gone."""
        left = sum((self.history.folder / name).exists() for name in names)
        deleted = len(names) - left
        words = f"{deleted} picture{'' if deleted == 1 else 's'} deleted"
        return f"{words}, {left} kept." if left else f"{words}."


def connect_several(wiring: Wiring, handlers: Handlers) -> None:
    several = wiring.by_component(with_filters(Several(handlers).delete))

    def delete(words: Any, day: Any, starred: Any, page: int, shown: list[str], event: gr.SelectData) -> Any:
        try:
            chosen = read(event.value, Chosen, "chosen")
        except Unreadable:  # this does not come from the script
            return gr.skip()
        return several(words, day, starred, page, shown, chosen)

    wiring.parts["history_several"].select(
        delete,
        inputs=[wiring.parts[name] for name in LOOKING],
        outputs=[wiring.parts[name] for name in HISTORY],
        trigger_mode="multiple",  # a click carries its pictures
        **QUIET,
        **IN_TURN,
    )
