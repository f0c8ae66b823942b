"""Actions of impatient or hostile users: vanishing files, huge prompts, interfering tabs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import expect

from tests.ui.conftest import DEMO, PROMPT, Form, Served, axe_finds, wait_until_ready


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def make_one(form: Form, served: Served, **fields: Any) -> Path:
    form.prompt(steps=2)
    for label, value in fields.items():
        form.fill(label, value)
    return form.make(served)


def test_a_picture_that_is_gone_is_told(page: Any, form: Form, served: Served) -> None:
    for button in ("use", "init", "control", "hires", "delete"):
        made = make_one(form, served)
        expect(page.locator("#ld-picture-details .ld-error")).to_be_hidden()
        made.unlink()
        page.locator(f"#ld-picture-{button}").click()
        if button == "delete":
            page.locator("#ld-picture-confirmed").click()
        expect(page.locator("#ld-picture-details .ld-error")).to_contain_text(made.name)
        form.holds("Prompt", PROMPT)


def test_markup_in_a_prompt_is_text(page: Any, form: Form, served: Served) -> None:
    prompt = "<img src=x onerror=\"document.body.dataset.hacked='1'\"> 'quoted' \"twice\" & </textarea> {{7*7}} 🎈"
    form.prompt(prompt, steps=1)
    form.make(served)
    expect(page.locator("#ld-picture-text textarea")).to_have_value(re.compile(re.escape(prompt)))
    page.reload()
    wait_until_ready(page)
    form.holds("Prompt", prompt)
    assert page.evaluate("document.body.dataset.hacked") is None


def test_a_huge_prompt_is_taken_and_can_be_cancelled(page: Any, form: Form) -> None:
    form.prompt("a red circle, " * 1400, steps=900)
    form.generate()
    page.locator("#ld-stage .ld-words").wait_for()
    page.locator("#ld-cancel").click()
    form.wait_for("Cancelled")
    form.prompt("a red circle", steps=1)
    form.generate()
    form.wait_for("Done")


def test_one_tab_deletes_what_the_other_shows(open_page: Any, form: Form, served: Served) -> None:
    made = make_one(form, served, Seed=31337)
    tabs = [form.page, open_page()]
    for tab in tabs:
        Form(tab).search("31337")
        tab.locator("#ld-history-words", has_text="of 1").wait_for()
        tab.locator("#ld-history img").first.click()
        tab.locator("#ld-history-delete").click()
    tabs[0].locator("#ld-history-confirmed").click()
    tabs[0].locator("#ld-history-words", has_text="Nothing found").wait_for()
    tabs[1].locator("#ld-history-confirmed").click()
    expect(tabs[1].locator("#ld-history-details .ld-error")).to_contain_text(made.name)


def test_only_pictures_are_read_from_any_path(served: Served, form: Form) -> None:
    made = make_one(form, served)
    address = f"{served.url}gradio_api/file="
    for hidden in (
        "../settings.json",
        "../models/checkpoints/demo.safetensors",
        "%2e%2e/settings.json",
        "..%2fsettings.json",
        "last_seed.json",
        "2026/../../settings.json",
    ):
        answer = httpx.get(address + quote(str(served.output)) + "/" + hidden)
        assert answer.status_code in (403, 404), hidden
    assert httpx.get(address + quote(str(made))).content == made.read_bytes()


def test_settings_that_name_nothing_real(context: Any, served: Served) -> None:
    """Such settings may be written by hand or by another version."""
    served.settings.write_text(
        json.dumps({"checkpoint": DEMO, "prompt": "kept", "sampler": "nothing", "level": "silly", "width": 1e99})
    )
    page = context.new_page()
    page.goto(served.url)
    wait_until_ready(page)
    form = Form(page)
    form.holds("Prompt", "kept")
    form.fill("Width", 64)
    form.fill("Height", 64)
    form.prompt(steps=1)
    form.generate()
    form.wait_for("Done")


def test_every_tab_passes_axe(page: Any, form: Form, served: Served) -> None:
    for made_before in served.pictures():
        made_before.unlink()
    form.show("History")
    page.locator("#ld-history-words", has_text="There are no pictures yet").wait_for()
    assert axe_finds(page) == [], "an empty history"
    make_one(form, served)
    for name in ("Compare", "History", "Help"):
        form.show(name)
        assert axe_finds(page) == [], name
    page.get_by_role("tab", name="Image to image").click()
    page.locator("#ld-editor canvas").first.wait_for()
    assert axe_finds(page) == []
