"""Stars: they last beyond the program, two of it may change them, and a damaged file is neither used nor replaced."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modules.core.errors import OptionsError, OutputError
from modules.gallery.stars import STARS, Stars

NO_JSON = ["", "nonsense", "[" * 5000]
NO_LIST = ["[1]", "{}", '{"starred": "a.png"}', '{"starred": [1]}', '{"starred": [], "a": 1}']


def picture(folder: Path, number: int) -> Path:
    return folder / "2026-11-28" / f"{number:05}-7.png"


def test_stars_are_kept_by_name_relative_to_the_folder(tmp_path: Path) -> None:
    stars = Stars(tmp_path)
    assert stars.names() == frozenset() and not (tmp_path / STARS).exists()
    stars.set([picture(tmp_path, 2), picture(tmp_path, 1)], starred=True)
    kept = {"starred": ["2026-11-28/00001-7.png", "2026-11-28/00002-7.png"]}
    assert json.loads((tmp_path / STARS).read_text()) == kept
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / STARS).rename(moved / STARS)
    again = Stars(moved)
    assert again.has(picture(moved, 1)) and not again.has(picture(moved, 3))
    again.set([picture(moved, 1), picture(moved, 3)], starred=False)
    assert again.names() == {"2026-11-28/00002-7.png"}


def test_several_tabs_and_programs_star_at_once(tmp_path: Path) -> None:
    stars, other = Stars(tmp_path), Stars(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: stars.set([picture(tmp_path, number)], starred=True), range(24)))
    other.set([picture(tmp_path, 24)], starred=True)
    stars.set([picture(tmp_path, 25)], starred=True)
    assert len(stars.names()) == 26


@pytest.mark.parametrize("text", NO_JSON + NO_LIST)
def test_a_damaged_list_is_one_sentence_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / STARS).write_text(text)
    stars = Stars(tmp_path)
    for use in (stars.names, lambda: stars.set([picture(tmp_path, 1)], starred=True)):
        with pytest.raises(OptionsError, match=r"stars\.json.* cannot be used because .*move it away") as told:
            use()
        assert "\n" not in str(told.value)
    assert (tmp_path / STARS).read_text() == text


def test_a_list_edited_by_hand_may_name_anything(tmp_path: Path) -> None:
    names = ["gone/1.png", "../up.png", "ü 1.png", "\ud800"]
    (tmp_path / STARS).write_text(json.dumps({"starred": names}))
    Stars(tmp_path).set([picture(tmp_path, 1)], starred=True)
    assert Stars(tmp_path).names() == {*names, "2026-11-28/00001-7.png"}


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="not in the output folder"):
        Stars(tmp_path / "output").set([tmp_path / "other.png"], starred=True)
    with pytest.raises(OutputError, match="cannot be saved"):
        Stars(tmp_path / "missing").set([picture(tmp_path / "missing", 1)], starred=True)
