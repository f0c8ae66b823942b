"""Handles the history: its pages, what it is filtered by, and the deletion of a picture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from modules.core.errors import LightDiffusionError
from modules.gallery.stars import Stars
from ui.events.handlers import Handlers, Update, hide, hide_row
from ui.events.pictures.choosing import IN_TURN, connect_clicks, details_of
from ui.events.wiring import Wiring
from ui.panels import render

PAGE = 48
FILTERS = ("search", "history_day", "history_starred")
HISTORY = (
    *("history_gallery", "history_paths", "history_words", "history_day", "page", "older", "newer"),
    *("history_details", "history_confirm", "history_several", "history_list_message"),
)
LOOKING = (*FILTERS, "page", "history_paths")  # what a handler needs to list the pictures again


@dataclass(frozen=True)
class Filters:
    """What the listed pictures have in common: words of their text, the folder of their day, and maybe a star."""

    words: str
    day: str
    starred: bool


class HistoryPages:
    """Handles the History tab."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def first(self, filters: Filters, _: int, shown: list[str]) -> Update:
        return self.look(filters, 0, shown)

    def older(self, filters: Filters, page: int, shown: list[str]) -> Update:
        return self.look(filters, page + 1, shown)

    def newer(self, filters: Filters, page: int, shown: list[str]) -> Update:
        return self.look(filters, max(0, page - 1), shown)

    def look(self, filters: Filters, page: int, shown: list[str]) -> Update:
        """Returns one page of the pictures found, newest first; the last page for any beyond it.

        If the pictures are the same as in `shown`, the list is not updated, so the user's selection is kept.
        """
        history = self.handlers.history
        days = history.days()
        day = filters.day if filters.day in days else ""
        starred, message = read_stars(history.stars)
        names = starred if filters.starred else None
        entries, total = history.search(filters.words, day=day, names=names, limit=PAGE, skip=page * PAGE)
        if page and not entries:
            return self.look(filters, page - 1, shown)
        paths = [str(entry.path) for entry in entries]
        first = page * PAGE + 1
        found = f"{first}-{first + len(paths) - 1} of {total}" if paths else nothing(filters)
        update: Update = {
            "history_words": render.status_line(found),
            "history_day": gr.Dropdown(choices=day_choices(days), value=day),
            "page": page,
            "older": gr.Button(interactive=first + len(paths) <= total),
            "newer": gr.Button(interactive=page > 0),
            "history_several": marks(history.stars, paths, starred),
            "history_list_message": message,
        }
        if paths == shown:
            return update
        return update | {
            "history_gallery": gr.Gallery(value=paths, visible=bool(paths), selected_index=None),
            "history_paths": paths,
            "history_details": hide(),
            "history_confirm": hide_row(),
        }

    def delete(self, filters: Filters, page: int, shown: list[str], path: str) -> Update:
        try:
            self.handlers.history.delete(Path(path))
        except LightDiffusionError as error:
            return {"history_message": render.error_box(str(error)), "history_confirm": hide_row()}
        return self.look(filters, page, shown)


def nothing(filters: Filters) -> str:
    is_filtered = filters != Filters("", "", starred=False)
    return "Nothing found." if is_filtered else "There are no pictures yet. All that you make are listed here."


def day_choices(days: dict[str, int]) -> list[tuple[str, str]]:
    """Lists the choices of "Day" as (label, name of the folder)."""
    return [("All days", ""), *((f"{spoken(day)} ({count})", day) for day, count in days.items())]


def spoken(day: str) -> str:
    """Writes `2026-11-28` as "28 Nov 2026". The name of any other folder stays as it is."""
    try:
        made = date.fromisoformat(day)
    except ValueError:
        return day
    return f"{made.day} {made:%b %Y}"


def read_stars(stars: Stars) -> tuple[frozenset[str], str]:
    """Returns the names of the starred pictures, and a message if their list is unreadable."""
    try:
        return stars.names(), ""
    except LightDiffusionError as error:
        return frozenset(), render.error_box(str(error))


def marks(stars: Stars, paths: Sequence[str], starred: Collection[str]) -> dict[str, list[str]]:
    """Returns what history_several.js draws: the names of the listed pictures in order, and which are starred."""
    names = [stars.name(Path(path)) for path in paths]
    return {"names": names, "starred": [name for name in names if name in starred]}


def connect_history(wiring: Wiring, handlers: Handlers) -> None:
    pages, parts, on = HistoryPages(handlers), wiring.parts, partial(wiring.on, **IN_TURN)
    on(parts["history_tab"].select, with_filters(pages.look), LOOKING, HISTORY)
    on(parts["search"].change, with_filters(pages.first), LOOKING, HISTORY)
    on(wiring.any_of(("history_day", "history_starred"), "input"), with_filters(pages.first), LOOKING, HISTORY)
    on(parts["older"].click, with_filters(pages.older), LOOKING, HISTORY)
    on(parts["newer"].click, with_filters(pages.newer), LOOKING, HISTORY)
    details = details_of("history")
    connect_clicks(wiring, "history_gallery", "history_paths", partial(handlers.choose, "history"), details)
    after = (*HISTORY, "history_message")
    on(parts["history_confirmed"].click, with_filters(pages.delete), (*LOOKING, "history_chosen"), after)


def with_filters(answer: Callable[..., Update]) -> Callable[..., Update]:
    """Wraps a handler that takes Filters, followed by any further values."""

    def filtered(words: str | None, day: str | None, starred: bool | None, *values: Any) -> Update:
        return answer(Filters(words or "", day or "", starred=bool(starred)), *values)

    return filtered
