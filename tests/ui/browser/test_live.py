"""Tests that Live draws the newest words while one types, each after the last one's end, and without previews."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import PATIENCE, Form, Served

WORDS = "a red circle on a blue background"
TYPE = """([words, pause]) => new Promise((done) => {
  const field = document.querySelector('#ld-prompt textarea');
  let length = 0;
  const next = () => {
    field.value = words.slice(0, ++length);
    field.dispatchEvent(new Event('input', {bubbles: true}));
    length < words.length ? setTimeout(next, pause) : done();
  };
  next();
})"""


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def test_live_draws_the_newest_words(page: Any, form: Form, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    submit = served.handlers.queue.submit
    monkeypatch.setattr(
        served.handlers.queue, "submit", lambda task, **how: asked.append(submit(task, **how)) or asked[-1]
    )
    form.prompt("", steps=20)
    live, words = page.get_by_label("Live", exact=True), page.locator("#ld-live-words")
    live.check()
    expect(words).to_contain_text("at most 8 steps")
    assert not asked
    form.fill("Steps", 1)
    expect(words).to_have_text("")
    page.evaluate(TYPE, [WORDS, 60])  # two seconds
    for _ in range(PATIENCE // 50):
        if asked and asked[-1].task.options.prompt == WORDS and asked[-1].finished:
            break
        page.wait_for_timeout(50)
    assert 1 < len(asked) < len(WORDS) / 2, "pictures while one types, and not for each key"
    assert asked[-1].task.options.prompt == WORDS and not any(one.has_previews for one in asked)
    spans = [(one.started or 0.0, one.ended or 0.0) for one in asked]
    assert all(ended <= began for (_, ended), (began, _) in zip(spans, spans[1:], strict=False))
    form.wait_for("Done")
    live.uncheck()
    made = len(asked)
    form.fill("Prompt", "a green square")
    page.wait_for_timeout(500)
    assert len(asked) == made
