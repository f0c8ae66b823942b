"""Stars and the deletion of several pictures: what is kept, what is said, and what another tab has done meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect

from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.session import Session
from modules.images.save import save_png
from modules.tasks.queue import TaskQueue
from tests.ui.conftest import TWO_FRAMES, Form, Served, axe_finds
from tests.ui.tabs import VIEWPORT
from tests.ui.test_layout import SIDEWAYS
from ui.events.handlers import Handlers
from ui.events.pictures.history import Filters, HistoryPages
from ui.events.pictures.several import Chosen, Several
from ui.events.pictures.starring import Starring
from ui.panels.results.pictures import STAR, UNSTAR
from ui.settings import SettingsFile

ALL = Filters("", "", starred=False)


@pytest.fixture
def handlers(model_root: Path) -> Handlers:
    folders, output = ModelFolders(model_root, names_only=True), OutputFolder(model_root / "output")
    for seed in range(4):
        save_png(Image.new("RGB", (8, 8)), output.folder, seed, f"a cat\nSteps: 1, Seed: {seed}, Size: 8x8")
    queue = TaskQueue(lambda: Session(folders, device="cpu"), output)
    return Handlers(queue, folders, output, SettingsFile(model_root / "s.json", output.folder))


def names(handlers: Handlers) -> list[str]:
    return [handlers.history.stars.name(path) for path in handlers.history.paths()]


def delete(handlers: Handlers, chosen: list[str], *, starred: bool = False) -> Any:
    return Several(handlers).delete(ALL, 0, [], Chosen(names=tuple(chosen), starred=starred))


def test_a_star_follows_the_button_and_marks_the_thumbnail(handlers: Handlers) -> None:
    path, *_ = map(str, handlers.history.paths())
    starring = Starring(handlers)
    assert handlers.choose("history", path)["history_star"] == STAR
    update = starring.answer_in_history(path, STAR, [path])
    assert update["history_star"] == UNSTAR and update["history_several"]["starred"] == names(handlers)[:1]
    assert starring.answer("picture", path, STAR)["picture_star"] == UNSTAR, "another tab that still says Star"
    assert handlers.choose("picture", path)["picture_star"] == UNSTAR
    found = HistoryPages(handlers).look(Filters("cat", "", starred=True), 0, [])
    assert found["history_paths"] == [path]
    assert starring.answer_in_history(path, UNSTAR, [path])["history_several"]["starred"] == []
    Path(path).unlink()
    assert "no longer exists" in starring.answer("picture", path, STAR)["picture_message"]


@pytest.mark.parametrize("too", [False, True])
def test_starred_pictures_are_kept_unless_the_user_says_so(handlers: Handlers, *, too: bool) -> None:
    newest, other, *_ = names(handlers)
    handlers.history.stars.set([handlers.history.paths()[0]], starred=True)
    update = delete(handlers, [newest, other], starred=too)
    assert (newest in names(handlers)) is not too and other not in names(handlers)
    assert ("2 pictures deleted." if too else "1 picture deleted, 1 kept.") in update["history_list_message"]
    assert len(update["history_paths"]) == len(handlers.history.paths())


def test_what_another_tab_has_deleted_is_not_counted(handlers: Handlers) -> None:
    newest, other, *_ = names(handlers)
    handlers.history.delete(handlers.history.paths()[0])
    assert "1 picture deleted." in delete(handlers, [newest, other])["history_list_message"]


def test_unreadable_stars_are_told_and_nothing_is_deleted(handlers: Handlers) -> None:
    handlers.history.stars.path.write_text("nonsense")
    listed = HistoryPages(handlers).look(ALL, 0, [])
    assert len(listed["history_paths"]) == 4 and "not valid JSON" in listed["history_list_message"]
    path = listed["history_paths"][0]
    assert "not valid JSON" in handlers.choose("history", path)["history_message"]
    assert "not valid JSON" in Starring(handlers).answer("history", path, STAR)["history_message"]
    update = delete(handlers, names(handlers), starred=True)
    assert "0 pictures deleted, 4 kept." in update["history_list_message"] and len(names(handlers)) == 4


@pytest.mark.parametrize("name", ["../s.json", "/etc/hosts", "stars.json", "."])
def test_only_pictures_of_the_folder_are_deleted(handlers: Handlers, name: str) -> None:
    handlers.history.stars.set(handlers.history.paths()[:1], starred=True)
    (handlers.output.folder.parent / "s.json").write_text("{}")
    update = delete(handlers, [name, *names(handlers)])
    assert "not a picture in the output folder" in update["history_list_message"] and len(names(handlers)) == 4


def test_the_last_page_is_shown_when_its_pictures_are_gone(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.events.pictures.history.PAGE", 3)
    last = names(handlers)[3:]
    update = Several(handlers).delete(ALL, 1, [], Chosen(names=tuple(last), starred=False))
    assert update["page"] == 0 and len(update["history_paths"]) == 3


@pytest.fixture
def three(served: Served) -> list[Path]:
    """Three pictures that the search finds by one word, newest first."""
    text = "striped\nSteps: 1, Seed: 7, Size: 64x64"
    made = [save_png(Image.new("RGB", (64, 64), colour), served.output, 7, text) for colour in ("red", "green", "blue")]
    return made[::-1]


def test_stars_and_several_on_the_page(used_page: Any, used_form: Form, served: Served, three: list[Path]) -> None:
    page, part = used_page, lambda name: used_page.locator(f"#ld-history-several [data-part={name}]")
    found, items = page.locator("#ld-history-words"), page.locator("#ld-history .thumbnail-lg")
    used_form.search("striped")
    expect(found).to_have_text("1-3 of 3")
    items.first.click()
    page.get_by_role("button", name=STAR).and_(page.locator("#ld-history-star")).click()
    expect(page.locator("#ld-history-star")).to_have_text(UNSTAR)
    expect(items.first).to_have_attribute("aria-description", "starred")

    part("switch").press("Enter")
    expect(page.locator("#ld-history-details")).to_be_hidden()
    items.nth(0).click()
    items.nth(2).click(modifiers=["Shift"])
    expect(part("count")).to_have_text("3 of 3 chosen")
    items.nth(1).press("Space")
    expect(part("count")).to_have_text("2 of 3 chosen")
    expect(items.nth(1)).to_have_attribute("aria-pressed", "false")
    part("ask").press("Enter")
    expect(part("words")).to_have_text("Delete 1 picture permanently? The starred one will be kept.")
    check_looks(page)
    page.keyboard.press("Escape")
    expect(part("question")).to_be_hidden()
    part("ask").press("Enter")
    part("also").get_by_label("Delete the starred one too").check()
    expect(part("delete")).to_have_text("Delete 2 pictures")
    part("also").get_by_role("checkbox").uncheck()
    part("delete").press("Enter")
    expect(page.locator("#ld-history-list-message")).to_have_text("1 picture deleted, 1 kept.")
    expect(found).to_have_text("1-2 of 2")
    assert [path.exists() for path in three] == [True, True, False]
    address = f"{served.url}gradio_api/file={served.handlers.history.stars.path}"
    assert httpx.get(address).status_code == 403, "the page gives out pictures, not the list"

    page.keyboard.press("Escape")
    expect(part("switch")).to_have_attribute("aria-pressed", "false")
    only = page.get_by_label("Starred only")
    only.check()
    expect(found).to_have_text("1-1 of 1")
    only.uncheck()
    expect(found).to_have_text("1-2 of 2")
    expect(items.first).to_have_attribute("aria-description", "starred")


def check_looks(page: Any) -> None:
    """Checks both themes, and the width of the narrowest phone."""
    page.set_viewport_size({"width": 320, "height": 844})
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(TWO_FRAMES)
        assert axe_finds(page) == [], scheme
        assert page.evaluate(SIDEWAYS) == []
    page.set_viewport_size(VIEWPORT)
