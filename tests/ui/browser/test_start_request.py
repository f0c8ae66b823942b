"""Tests that a click on Generate is answered at once, is never lost, and leaves no stale answer behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import Form, Served

JOIN = "**/gradio_api/queue/join*"
ANSWER = "#ld-answer"
# Clicks Generate, and again in the moment in which the last words of the request appear.
CLICK_AT_DONE = """() => new Promise((done) => {
  const stage = document.querySelector('#ld-stage'), button = document.querySelector('#ld-generate');
  const watch = new MutationObserver(() => {
    if (!stage.querySelector('[role=progressbar]')) return;
    watch.disconnect();
    new MutationObserver((_, last) => {
      if (!stage.textContent.includes('Done')) return;
      last.disconnect();
      setTimeout(() => {
        button.click();
        const task = document.querySelector('#ld-task :is(textarea, input)').value;
        done([task, stage.querySelector('#ld-answer').textContent]);
      });
    }).observe(stage, {childList: true, subtree: true});
  });
  watch.observe(stage, {childList: true, subtree: true});
  button.click();
})"""
CLICK_TWICE = """() => {
  const button = document.querySelector('#ld-generate');
  button.click();
  button.click();
  return [document.querySelector('#ld-answer').textContent, button.ariaDisabled];
}"""
CHOOSE_TAB_AND_CLICK = """() => {
  [...document.querySelectorAll('#ld-modes [role=tab]')].find((tab) => tab.textContent.includes('Image')).click();
  document.querySelector('#ld-generate').click();
}"""


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


@pytest.fixture
def held(page: Any) -> Iterator[list[Any]]:
    """Holds requests that start something; the test lets them go on or fail."""
    held: list[Any] = []
    page.route(JOIN, lambda route: held.append(route))  # Playwright takes no builtin
    yield held
    page.unroute(JOIN)


def wait_for_one(page: Any, held: list[Any]) -> Any:
    for _ in range(500):
        if held:
            return held[0]
        page.wait_for_timeout(20)
    raise AssertionError("the page sent nothing")


def test_a_click_is_answered_at_once_and_sent_once(page: Any, form: Form, held: list[Any]) -> None:
    form.prompt(steps=1)
    assert page.evaluate(CLICK_TWICE) == ["Starting…", "true"]
    route = wait_for_one(page, held)
    expect(page.locator("#ld-stage .ld-words")).to_be_hidden()  # words of an earlier request are covered
    page.locator("#ld-generate").dispatch_event("click")
    route.continue_()
    form.wait_for("Done")
    expect(page.locator(ANSWER)).to_have_text("")
    page.wait_for_timeout(300)
    assert len(held) == 1


def test_a_click_at_the_end_of_a_request_starts_another(page: Any, form: Form, served: Served) -> None:
    form.prompt(steps=1)
    first, answer = page.evaluate(CLICK_AT_DONE)
    assert answer == "Starting…"
    task = page.locator("#ld-task textarea, #ld-task input")
    expect(task).not_to_have_value(first)
    form.wait_for("Done")
    assert served.handlers.queue.find(task.input_value()).state == "done"


def test_nothing_of_the_answer_stays_after_an_error(page: Any, form: Form, held: list[Any]) -> None:
    form.prompt(steps=1)
    form.generate()
    expect(page.locator(ANSWER)).to_have_text("Starting…")
    wait_for_one(page, held).fulfill(status=503, json={"detail": "The queue is full."})
    page.locator(".toast-body").get_by_text("busy").wait_for()
    expect(page.locator(ANSWER)).to_have_text("")
    page.get_by_test_id("toast-close").click()
    page.unroute(JOIN)
    form.generate()
    form.wait_for("Done")


def test_a_request_that_is_refused_twice_leaves_no_answer(page: Any, form: Form) -> None:
    form.fill("Width", 1)
    for _ in range(2):
        form.generate()
        form.message()
        form.wait_for("Not started")
        expect(page.locator(ANSWER)).to_have_text("")
        expect(page.locator("#ld-generate")).to_be_enabled()


def test_generate_waits_for_what_the_server_is_about_to_change(page: Any, form: Form) -> None:
    form.prompt(steps=1)
    page.evaluate(CHOOSE_TAB_AND_CLICK)
    assert "needs a picture" in form.message("init-message")
