"""The history: newest first, searchable by words; only pictures in its folder can be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import OptionsError, OutputError
from modules.gallery import history as history_module
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


def test_days_are_counted_and_searched_by_name(folder: Path) -> None:
    history = History(folder)
    today = history.paths()[0].parent
    old = folder / "2001-02-03"
    old.mkdir()
    history.paths()[0].rename(old / "00003-2.png")
    assert history.days() == {today.name: 2, "2001-02-03": 1} and list(history.days())[-1] == "2001-02-03"
    entries, total = history.search("blue", day="2001-02-03")
    assert [entry.path.parent for entry in entries] == [old] and total == 1
    assert history.search(day="1999-01-01") == ([], 0)


def test_only_the_named_pictures_are_searched(folder: Path) -> None:
    history = History(folder)
    _, square, circle = history.paths()
    history.stars.set([square, circle], starred=True)
    entries, total = history.search("blue", names=history.stars.names())
    assert [entry.path for entry in entries] == [square] and total == 1
    assert history.search(names=frozenset()) == ([], 0)


def test_several_are_deleted_with_their_stars(folder: Path) -> None:
    history = History(folder)
    star, square, circle = history.paths()
    history.stars.set([star, square], starred=True)
    history.delete_all([square, circle])
    assert history.paths() == [star] and history.stars.names() == {history.stars.name(star)}


def test_a_stranger_or_unreadable_stars_prevent_every_deletion(folder: Path) -> None:
    history = History(folder)
    paths = history.paths()
    with pytest.raises(OptionsError, match="not a picture in the output folder"):
        history.delete_all([paths[0], folder / "other.png"])
    history.stars.path.write_text("nonsense")
    with pytest.raises(OptionsError, match="cannot be used because"):
        history.delete_all(paths)
    assert history.paths() == paths


def test_what_is_deleted_before_a_failure_loses_its_star(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(folder)
    star, square, circle = history.paths()
    history.stars.set([star, square, circle], starred=True)
    delete = history_module.delete_file

    def fail(path: Path) -> None:
        if path == square:
            raise OutputError("busy")
        delete(path)

    monkeypatch.setattr(history_module, "delete_file", fail)
    with pytest.raises(OutputError, match="busy"):
        history.delete_all([star, square, circle])
    assert history.paths() == [square, circle]
    assert history.stars.names() == {history.stars.name(square), history.stars.name(circle)}
