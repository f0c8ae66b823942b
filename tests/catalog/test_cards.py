"""The cards of model files: what is on them, and that files are read again only when they change."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from modules.catalog import cards as cards_module
from modules.catalog.cards import ModelCards, prompt_names
from modules.core.paths import ModelFolders
from tests.catalog.header_files import save_header

XL = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.trigger_phrase": "wet paper"}


@pytest.fixture
def loras(model_root: Path) -> Path:
    return model_root / "models" / "loras"


@pytest.fixture
def cards(model_root: Path) -> ModelCards:
    return ModelCards(ModelFolders(model_root, names_only=True))


def test_a_card_has_name_folder_family_words_weight_and_picture(loras: Path, cards: ModelCards) -> None:
    save_header(loras / "styles" / "water.safetensors", XL)
    (loras / "styles" / "water.preview.png").write_bytes(b"x")
    save_header(loras / "plain.safetensors")
    plain, water = cards.of_kind("loras")
    assert (water.name, water.called, water.folder) == ("styles/water.safetensors", "water", "styles")
    assert (water.family, water.words, water.weight) == ("SDXL", ("wet paper",), 1.0)
    assert water.picture == loras / "styles" / "water.preview.png"
    assert (plain.folder, plain.family, plain.picture) == ("", "", None)
    (loras / "styles" / "water.json").write_text(json.dumps({"activation text": "water", "preferred weight": 0.6}))
    [_, water] = cards.of_kind("loras")
    assert (water.words, water.weight) == (("water",), 0.6), "a text beside it counts as soon as it is there"


def test_a_prompt_calls_each_file_as_shortly_as_nothing_else_is_called() -> None:
    names = ["a.pt", "A.safetensors", "b/a.safetensors", "b/c.v1.safetensors"]
    assert list(prompt_names(names).values()) == ["a.pt", "A.safetensors", "b/a", "c.v1"]


def test_a_prompt_finds_the_file_by_what_it_is_called(loras: Path, cards: ModelCards, model_root: Path) -> None:
    for name in ("ink.safetensors", "old/ink.safetensors", "old/pen.pt", "old/pen.safetensors", "new/sun.v2.pt"):
        save_header(loras / name)
    folders = ModelFolders(model_root, names_only=True)
    assert {card.name for card in cards.of_kind("loras")} == set(folders.list("loras"))
    for card in cards.of_kind("loras"):
        assert folders.find("loras", card.called) == loras / card.name


def test_only_pictures_of_listed_models_are_found(loras: Path, cards: ModelCards, tmp_path: Path) -> None:
    save_header(loras / "ink.safetensors")
    for place in (loras, tmp_path / "models", tmp_path):
        (place / "ink.png").write_bytes(b"x")
        save_header(place / "ink.safetensors")
    assert cards.picture("loras", "ink.safetensors") == loras / "ink.png"
    for name in ("../ink.safetensors", "../../ink.safetensors", str(loras / "ink.safetensors"), "ink", "", "\0"):
        assert cards.picture("loras", name) is None
    assert cards.picture("vae", "ink.safetensors") is None and cards.picture("..", "ink.safetensors") is None


def test_an_unchanged_file_is_not_read_again(loras: Path, cards: ModelCards, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        save_header(loras / f"{number:03}.safetensors", XL)
    assert len(cards.all()) == 500
    read: list[str] = []
    facts = cards_module.model_facts
    monkeypatch.setattr(cards_module, "model_facts", lambda path, kind: read.append(path.name) or facts(path, kind))
    begun = time.perf_counter()
    assert len(cards.all()) == 500 and read == []
    assert time.perf_counter() - begun < 1.0, "500 known files list in well under a second"
    changed = save_header(loras / "007.safetensors")
    os.utime(changed, ns=(1, 1))
    assert cards.of_kind("loras")[7].family == "" and read == ["007.safetensors"]


def test_a_file_that_vanishes_meanwhile_is_no_error(loras: Path, cards: ModelCards) -> None:
    (loras / "gone.safetensors").symlink_to(loras / "nowhere")
    [card] = cards.of_kind("loras")
    assert card.family == "" and card.picture is None
