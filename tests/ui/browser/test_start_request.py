"""Tests that a click that starts a request is answered at once, is never lost, and leaves no stale answer behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.tiny_project import save_photo
from tests.ui.conftest import PATIENCE, Form, Served, arguments_for
from ui.app import build_app, make_handlers

STARTING = {f"ld-{name}" for name in ("generate", "compare", "grid", "extras-run", "repaint-start")}
STARTING |= {"ld-picture-hires", "ld-history-hires"}
JOIN = "**/gradio_api/queue/join*"
ANSWER = "#ld-answer"
# Clicks this button, and again in the moment in which the last words of the request appear.
CLICK_AT_DONE = """(name) => new Promise((done) => {
  const stage = document.querySelector('#ld-stage'), button = document.querySelector(name);
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


def click_at_done(page: Any, served: Served, button: str) -> None:
    """Clicks twice as above, and waits until both requests are done."""
    first, answer = page.evaluate(CLICK_AT_DONE, button)
    assert answer == "Starting…"
    task = page.locator("#ld-task textarea, #ld-task input")
    expect(task).not_to_have_value(first)
    second = served.handlers.queue.find(task.input_value())
    assert second.wait(PATIENCE / 1000) and second.state == "done"
    expect(page.locator(f"{button}[aria-disabled]")).to_have_count(0)


def test_a_click_at_the_end_of_a_request_starts_another(page: Any, form: Form, served: Served) -> None:
    form.prompt(steps=1)
    click_at_done(page, served, "#ld-generate")


def test_no_tab_loses_a_click_at_the_end_of_a_request(page: Any, form: Form, served: Served, tmp_path: Path) -> None:
    form.prompt(steps=1)
    form.show("Compare")
    form.fill("Values of the columns", "1")
    form.fill("Values of the rows", "1")
    click_at_done(page, served, "#ld-grid")
    form.show("Extras")
    page.locator("#ld-extras-files input[type=file]").set_input_files(save_photo(tmp_path / "one.png", 512, 512))
    click_at_done(page, served, "#ld-extras-run")


def test_the_browser_hears_of_the_end_of_every_request(project_root: Path, tmp_path: Path) -> None:
    """Gradio drops clicks of such events, so a button that starts one has the class, and its end is told."""
    handlers = make_handlers(arguments_for(tmp_path, models_root=project_root))
    page = build_app(handlers)
    handlers.queue.close()
    clicks = [fn for fn in page.fns.values() if fn.trigger_mode == "once" and "click" in dict(fn.targets).values()]
    buttons = [page.blocks[fn.targets[0][0]] for fn in clicks]
    assert {button.elem_id for button in buttons} == STARTING
    assert all("ld-start" in button.elem_classes for button in buttons)
    for fn, button in zip(clicks, buttons, strict=True):
        told = f"ended('{button.elem_id}')"
        after = [other for other in page.fns.values() if other.trigger_after == fn._id and told in other.js]
        assert sorted(other.trigger_only_on_failure for other in after) == [False, True]


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
