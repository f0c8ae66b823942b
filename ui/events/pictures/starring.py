"""Handles the button that stars the selected picture or removes its star."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from modules.core.errors import LightDiffusionError
from ui.events.handlers import Handlers, Update
from ui.events.pictures.choosing import IN_TURN
from ui.events.pictures.history import marks, read_stars
from ui.events.wiring import Wiring
from ui.panels import render
from ui.panels.results.pictures import STAR, UNSTAR


def connect_starring(wiring: Wiring, handlers: Handlers) -> None:
    starring, star = Starring(handlers), wiring.parts["picture_star"]
    outputs = ("picture_star", "picture_message")
    wiring.on(star.click, partial(starring.answer, "picture"), ("picture_chosen", "picture_star"), outputs, **IN_TURN)
    inputs = ("history_chosen", "history_star", "history_paths")
    outputs = ("history_star", "history_message", "history_several")
    wiring.on(wiring.parts["history_star"].click, starring.answer_in_history, inputs, outputs, **IN_TURN)


class Starring:
    """Does what the button says, even if another tab has changed the star since; `panel` is the prefix of its name."""

    def __init__(self, handlers: Handlers) -> None:
        self.history = handlers.history

    def answer(self, panel: str, path: str, label: str) -> Update:
        if not Path(path).is_file():
            return {f"{panel}_message": render.error_box(f"{Path(path).name} no longer exists.")}
        try:
            self.history.stars.set([Path(path)], starred=label == STAR)
        except LightDiffusionError as error:
            return {f"{panel}_message": render.error_box(str(error))}
        return {f"{panel}_star": UNSTAR if label == STAR else STAR, f"{panel}_message": ""}

    def answer_in_history(self, path: str, label: str, shown: list[str]) -> Update:
        """Does the same, and marks the thumbnail. A picture that loses its star stays listed until the next search."""
        update = self.answer("history", path, label)
        starred, _ = read_stars(self.history.stars)
        return update | {"history_several": marks(self.history.stars, shown, starred)}
