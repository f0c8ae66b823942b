"""The section of styles without a browser: what is written, and what is said beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.catalog.styles import Style, read_styles, styles_file, write_styles
from modules.core.paths import ModelFolders
from ui.events.styles import Styles


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    (tmp_path / "models" / "wildcards").mkdir(parents=True)
    (tmp_path / "models" / "wildcards" / "a&b.txt").write_text("x\n")
    folders = ModelFolders(tmp_path)
    write_styles(folders, [Style(name="ink", prompt="{prompt} in ink"), Style(name="oil", negative_prompt="photo")])
    return folders


def test_applying_writes_the_texts_and_chooses_none(folders: ModelFolders) -> None:
    update = Styles(folders).apply(["ink", "oil"], "a cat", "")
    assert update == {"prompt": "a cat in ink", "negative_prompt": "photo", "styles": [], "styles_message": ""}


def test_deleting_asks_first_and_takes_only_the_chosen_ones(folders: ModelFolders) -> None:
    styles = Styles(folders)
    assert "No style is chosen" in styles.ask([])["styles_message"]
    assert styles.ask(["ink"])["styles_confirm"].visible
    assert len(read_styles(folders)) == 2
    update = styles.delete(["ink"])
    assert [style.name for style in read_styles(folders)] == ["oil"]
    assert update["styles"]["value"] == [] and "ink" in update["styles_message"]
    assert "There is no style" in styles.delete(["ink"])["styles_message"]


def test_a_damaged_file_is_told_and_the_wildcards_are_still_listed(folders: ModelFolders) -> None:
    styles_file(folders).write_text("what,is,this\n")
    styles = Styles(folders)
    for update in (styles.look(), styles.save("new", "a", ""), styles.apply(["ink"], "a", "")):
        assert "line 1" in update["styles_message"]
    assert "__a&amp;b__" in styles.look()["wildcards"]
