"""The history: newest first, searchable by words; only pictures in its folder can be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError
from modules.gallery.history import History
from modules.images.save import save_png


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, text in enumerate(["a red circle", "a Blue square", "a blue star"]):
        save_png(Image.new("RGB", (8, 8)), tmp_path, seed, f"{text}\nSteps: 1, Seed: {seed}, Size: 8x8")
    return tmp_path


def test_newest_first_with_all_words_in_any_case(folder: Path) -> None:
    history = History(folder)
    assert [path.name for path in history.paths()] == ["00003-2.png", "00002-1.png", "00001-0.png"]
    entries, total = history.search("BLUE square")
    assert [entry.path.name for entry in entries] == ["00002-1.png"] and total == 1
    entries, total = history.search(limit=1, skip=1)
    assert [entry.path.name for entry in entries] == ["00002-1.png"] and total == 3


def test_a_damaged_file_is_listed_without_text(folder: Path) -> None:
    damaged = history_day(folder) / "00009-9.png"
    damaged.write_bytes(b"no picture")
    assert History(folder).search()[0][0].text == ""


def history_day(folder: Path) -> Path:
    return History(folder).paths()[0].parent


def test_only_pictures_of_the_folder_are_deleted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    history = History(folder)
    stranger = tmp_path_factory.mktemp("elsewhere") / "x.png"
    Image.new("RGB", (8, 8)).save(stranger)
    for path in (stranger, folder / ".." / "x.png", folder / "last_seed.json"):
        with pytest.raises(OptionsError, match="not a picture in the output folder"):
            history.delete(path)
    assert stranger.exists()
    victim = history.paths()[0]
    history.delete(victim)
    assert not victim.exists() and len(history.paths()) == 2
