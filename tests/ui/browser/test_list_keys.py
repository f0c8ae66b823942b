"""Tests that a list that the keyboard passes closes again, and that the keyboard still chooses in it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import TWO_FRAMES, Form

OPEN_LISTS = "[...document.querySelectorAll('input[role=combobox][aria-expanded=true]')].map((one) => one.ariaLabel)"


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def test_a_list_closes_when_the_keyboard_leaves_it(page: Any, form: Form) -> None:
    form.field("Sampler").focus()
    assert page.evaluate(OPEN_LISTS) == ["Sampler"]
    for key, focused in (("Tab", "Scheduler"), ("Shift+Tab", "Sampler")):
        page.keyboard.press(key)
        expect(form.field(focused)).to_be_focused()
        page.evaluate(TWO_FRAMES)
        assert page.evaluate(OPEN_LISTS) == [focused]


def test_the_keyboard_chooses(page: Any, form: Form) -> None:
    form.field("Scheduler").focus()
    page.keyboard.type("simp")
    page.keyboard.press("Enter")
    form.holds("Scheduler", "Simple")
    form.choose("Scheduler", "Karras")
