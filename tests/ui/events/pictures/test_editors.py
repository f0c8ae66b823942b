"""Tests that a picture for a mask editor is kept back until the editor's canvas is there."""

from __future__ import annotations

from pathlib import Path

from ui.events.pictures.editors import shown_later
from ui.fields import editor_value


def test_the_picture_goes_to_the_hidden_field(tmp_path: Path) -> None:
    answer = shown_later(lambda: {"editor": editor_value(tmp_path / "x.png"), "mode": "image"}, "editor")
    assert answer() == {"editor": None, "mode": "image", "editor_path": str(tmp_path / "x.png")}


def test_an_answer_without_a_picture_stays_as_it_is() -> None:
    assert shown_later(lambda: {"editor": None}, "editor")() == {"editor": None, "editor_path": ""}
    assert shown_later(lambda: {"message": "gone"}, "editor")() == {"message": "gone", "editor_path": ""}
