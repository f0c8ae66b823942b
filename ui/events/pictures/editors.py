"""Puts a picture into a mask editor once its canvas is there; an editor that is given one earlier stays empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ui.events.handlers import Update
from ui.events.wiring import Wiring
from ui.fields import editor_value

# Waits up to ten seconds, and then for two frames.
WAIT_FOR_CANVAS = """async (path) => {
  const isThere = () => document.querySelector('#%s canvas');
  for (let turn = 0; path && turn < 200 && !isThere(); turn++) await new Promise((done) => setTimeout(done, 50));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return [path];
}"""


def path_of(editor: str) -> str:
    """Returns the name of the hidden field with the path of the picture that this editor is to show."""
    return f"{editor}_path"


def shown_later(answer: Callable[..., Update], editor: str) -> Callable[..., Update]:
    """Wraps a handler whose update has a picture for this editor: the picture goes into the hidden field."""

    def later(*values: Any) -> Update:
        update = answer(*values)
        drawing = update.get(editor)
        if not drawing:
            return {path_of(editor): "", **update}
        return {**update, editor: None, path_of(editor): drawing["background"]}

    return later


def connect_editor(wiring: Wiring, answered: Any, editor: str) -> None:
    """Shows the picture of the hidden field after this event, which is `answered`."""

    def show(path: str) -> Update:
        return {editor: editor_value(Path(path)), path_of(editor): ""} if path else {}

    script = WAIT_FOR_CANVAS % wiring.parts[editor].elem_id
    field = path_of(editor)
    wiring.on(answered.then, show, (field,), (editor, field), js=script, queue=False)
