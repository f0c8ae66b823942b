"""Tests that messages of the engine name the page's fields, and that these fields exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ui.conftest import arguments_for
from ui.app import build_app, make_handlers
from ui.panels.page_words import ALL_LABELS, in_page_words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Give another with --checkpoint.", "Give another with “Checkpoint”."),
        ("It needs a mask: give one with --mask FILE, or", "It needs a mask: give one with “Mask file”, or"),
        ("choose another --mask-colour", "choose another “Colour”"),
        ("give one with --refiner NAME, not --refiner-start", "give one with “Refiner”, not “Refiner start”"),
        ("in tiles (--tiled-upscale).", "in tiles (“Tiled upscale”)."),
        ("try again with --dtype float32", "try again with --dtype float32"),
        ("--stable-fast-table", "--stable-fast-table"),
    ],
)
def test_options_are_said_in_the_page_s_words(text: str, said: str) -> None:
    assert in_page_words(text) == said


def test_the_page_has_all_these_fields(project_root: Path, tmp_path: Path) -> None:
    handlers = make_handlers(arguments_for(tmp_path, models_root=project_root))
    page = build_app(handlers)
    handlers.queue.close()
    labels = {getattr(block, "label", None) for block in page.blocks.values()}
    assert {label for label in ALL_LABELS.values() if label not in labels} == set()
