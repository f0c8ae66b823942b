"""What the script of the cards may ask of the server, which strangers may ask as well."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modules.catalog.cards import ModelCards
from modules.core.paths import ModelFolders
from modules.gallery.thumbnails import Thumbnails
from tests.catalog.header_files import save_header
from ui.panels.results.models import MOST_PICTURES, server_functions

INK = "ink.safetensors"


@pytest.fixture
def asked(model_root: Path) -> tuple[Any, ...]:
    """The two functions, with a LoRA and its picture."""
    save_header(model_root / "models" / "loras" / INK, {"ss_base_model_version": "sd_v1"})
    Image.new("RGB", (900, 900), "red").save(model_root / "models" / "loras" / "ink.png")
    return tuple(server_functions(ModelCards(ModelFolders(model_root, names_only=True)), Thumbnails()))


def test_cards_travel_as_json_without_paths(asked: tuple[Any, ...], model_root: Path) -> None:
    text = json.dumps(asked[0](None))
    assert INK in text and "SD1.x" in text and str(model_root) not in text


def test_a_picture_is_a_small_jpeg(asked: tuple[Any, ...]) -> None:
    [url] = asked[1]([["loras", INK]])
    kind, _, data = url.partition(",")
    assert kind == "data:image/jpeg;base64" and max(Image.open(BytesIO(base64.b64decode(data))).size) == 256


@pytest.mark.parametrize(
    "wanted",
    [None, 7, "x", {}, [None], [[]], [["loras"]], [["loras", 7]], [[{}, INK]], [["loras", "../ink"]], [["x", INK]]],
)
def test_anything_else_has_no_picture(asked: tuple[Any, ...], wanted: Any) -> None:
    assert not any(asked[1](wanted))


def test_a_damaged_picture_leaves_the_tile_and_answers_are_bounded(asked: tuple[Any, ...], model_root: Path) -> None:
    (model_root / "models" / "loras" / "ink.png").write_bytes(b"%!PS")
    assert asked[1]([["loras", INK]] * 1000) == [None] * MOST_PICTURES
