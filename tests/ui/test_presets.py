"""Tests forms that are kept under names: what comes back, hostile files and names, and the page's use of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from modules.core.errors import OptionsError
from ui.presets import Presets

FRESH: dict[str, Any] = {"prompt": "", "steps": 20, "seed": "", "control_1": "", "control_1_image": None}
OUTSIDE = ["", ".", "..", "../a", "a/b", "a\\b", "/etc/a", ".hidden", "a.", "a\0", "x" * 61, "a\ud800"]


def test_a_preset_comes_back_without_pictures(tmp_path: Path) -> None:
    presets = Presets(tmp_path / "presets")
    assert presets.names() == []
    form = FRESH | {"prompt": "ü", "steps": 5, "control_1": "net", "control_1_image": "/secret.png", "editor": None}
    assert not presets.save("My look (1)", form)
    assert presets.save("My look (1)", form | {"steps": 6})
    assert presets.names() == ["My look (1)"]
    assert presets.load("My look (1)", FRESH) == {"prompt": "ü", "steps": 6, "seed": "", "control_1": ""}
    assert "secret" not in (tmp_path / "presets" / "My look (1).json").read_text()
    presets.delete("My look (1)")
    assert presets.names() == []


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    presets = Presets(tmp_path / "presets")
    (tmp_path / "a.json").write_text("{}")
    uses: list[Callable[[], Any]] = [lambda: presets.delete(name), lambda: presets.load(name, FRESH)]
    for use in (*uses, lambda: presets.save(name, FRESH)):
        with pytest.raises(OptionsError, match="name"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "[1]", "nonsense", "[" * 5000, '{"steps": 1e999, "prompt": 7, "seed": true}'])
def test_a_hostile_file_is_ignored_field_by_field(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert Presets(tmp_path).load("a", FRESH)["steps"] == FRESH["steps"]


def test_presets_and_repeat_on_the_page(page: Any, form: Any, served: Any) -> None:
    kept = served.settings.parent / "presets" / "quick.json"
    form.prompt("a green square", steps=2)
    form.unfold("Presets")
    page.locator("#ld-presets-name input").fill("quick")
    page.locator("#ld-presets-save").click()
    assert "quick is saved" in form.message("presets-message")
    assert json.loads(kept.read_text())["prompt"] == "a green square"
    form.fill("Prompt", "another")
    page.locator("#ld-presets-load").click()
    form.holds("Prompt", "a green square")
    page.locator("#ld-presets-delete").click()
    page.locator("#ld-presets-confirmed").click()
    expect(page.locator("#ld-presets-message")).to_contain_text("deleted")
    assert not kept.exists()

    before, repeat = len(served.pictures()), page.get_by_label("Repeat", exact=True)
    task = page.locator("#ld-task textarea, #ld-task input")
    repeat.check()
    form.generate()
    expect(task).not_to_have_value("")
    first = task.input_value()
    expect(task).not_to_have_value(first)
    repeat.uncheck()
    assert served.handlers.queue.find(task.input_value()).wait(60)
    assert len({path.stem.split("-")[-1] for path in served.pictures()[:2]}) == 2
    assert len(served.pictures()) >= before + 2
    form.wait_for("Done")
    repeat.check()
    form.fill("Steps", "")
    form.generate()
    expect(page.locator("#ld-message .ld-error")).to_contain_text("Steps")
    expect(page.locator("#ld-message .ld-note")).to_have_text("Repeat stopped.")
    expect(repeat).not_to_be_checked()
