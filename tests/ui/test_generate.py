"""The main flow in a real browser: launch, tick the box, set parameters, generate, and see the picture."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from playwright.sync_api import expect

from modules.generation.checks import too_large
from modules.images.save import read_parameters
from tests.ui.conftest import DEMO, PROMPT, TINY, Form, Served, wait_until_ready


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def shown_picture(page: Any) -> Any:
    picture = page.locator("#ld-gallery .preview img, #ld-gallery .media-button img, #ld-gallery img").first
    picture.wait_for()
    return picture


def test_the_gallery_shows_the_file_on_disk_with_its_metadata(page: Any, form: Form, served: Served) -> None:
    form.prompt()
    form.fill("Seed", 11)
    newest = form.make(served)
    assert "1 picture" in form.wait_for("Done")
    expect(shown_picture(page)).to_have_attribute("src", re.compile(newest.stem))
    source = shown_picture(page).get_attribute("src")
    assert page.request.get(source).body() == newest.read_bytes()
    assert unquote(urlparse(source).path).endswith(newest.name)
    assert read_parameters(newest).startswith(PROMPT)
    assert "Seed: 11" in read_parameters(newest)


def test_ctrl_enter_generates_as_many_as_asked(page: Any, form: Form, served: Served) -> None:
    form.prompt()
    form.fill("Batch count", 2)
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    assert "2 pictures" in form.wait_for("Done")
    assert len({path.read_bytes() for path in served.pictures()[:2]}) == 2


def test_stable_fast_checkbox(page: Any, form: Form, served: Served) -> None:
    with page.expect_response(re.compile("/gradio_api/run/")):
        page.locator("#ld-refresh").click()
    form.choose("Checkpoint", TINY)
    form.prompt(steps=2)
    form.fill("Width", 64)
    form.fill("Height", 64)
    page.get_by_label("Stable-Fast", exact=True).check()
    form.generate()
    form.wait_for("Done")
    expect(page.locator("#ld-stable-fast-status")).to_contain_text("Stable-Fast:")
    assert "Stable-Fast: full" in read_parameters(served.pictures()[0])
    form.choose("Checkpoint", DEMO)


def test_progress_and_preview_then_cancel_leaves_a_usable_app(page: Any, form: Form, served: Served) -> None:
    before = len(served.pictures())
    form.prompt(steps=900)
    form.generate()
    assert "of 900" in form.wait_for("left")
    assert page.locator("#ld-skip").is_disabled(), "there is no other batch to go on with"
    page.locator("img.ld-preview").wait_for()
    assert int(page.get_by_role("progressbar", name="Progress").get_attribute("aria-valuenow")) < 100
    page.locator("#ld-cancel").click()
    form.wait_for("Cancelled")
    assert len(served.pictures()) == before
    form.fill("Steps", 2)
    form.generate()
    form.wait_for("Done")
    assert len(served.pictures()) == before + 1


def test_cancel_stops_within_one_step(page: Any, form: Form, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    form.prompt(steps=900)
    form.generate()
    form.wait_for("of 900")
    (queued,) = served.handlers.queue.unfinished()
    cancel, steps_done = queued.cancel.cancel, []

    def cancel_and_look() -> None:
        cancel()
        steps_done.append(queued.pace.step)

    monkeypatch.setattr(queued.cancel, "cancel", cancel_and_look)
    page.locator("#ld-cancel").click()
    form.wait_for("Cancelled")
    assert queued.pace.step - steps_done[0] <= 1


def test_skip_and_cancel_keep_finished_pictures(page: Any, form: Form) -> None:
    form.prompt(steps=40)
    form.fill("Batch count", 500)
    form.generate()
    form.wait_for(re.compile(r"batch ([2-9]|\d\d+) of 500"))  # on a busy machine, the page misses some batches
    page.locator("#ld-skip").click()
    form.wait_for("Skipped 1 batch")
    page.locator("#ld-cancel").click()
    assert "kept" in form.wait_for("Cancelled")
    shown_picture(page)


def test_reload_during_generation_finds_the_request_again(page: Any, form: Form) -> None:
    form.prompt(steps=900)
    form.generate()
    form.wait_for("of 900")
    page.reload()
    wait_until_ready(page)
    form.wait_for("of 900")
    form.holds("Prompt", PROMPT)
    page.locator("#ld-cancel").click()
    form.wait_for("Cancelled")


def test_two_tabs_queue(open_page: Any, form: Form, served: Served) -> None:
    form.prompt(steps=900)
    form.generate()
    form.wait_for("of 900")
    second = Form(open_page())
    second.prompt(steps=900)
    second.generate()
    second.wait_for("Waiting in the queue")
    second.page.locator("#ld-cancel").click()
    second.wait_for("Cancelled")
    assert len(served.handlers.queue.unfinished()) == 1, "a waiting request is cancelled at once"
    second.fill("Steps", 2)
    second.generate()
    assert "1 request is before yours" in second.wait_for("Waiting in the queue")
    expect(second.page.locator("#ld-memory")).to_contain_text("1 waiting")  # not the one that runs
    form.page.locator("#ld-cancel").click()
    form.wait_for("Cancelled")
    second.wait_for("Done")


WRONG = (
    ("Width", "100", "multiple of 8"),
    ("Steps", "0", "steps 0 is out of range"),
    ("Steps", "", "Steps is empty"),
    ("Seed", "abc", "not a whole number"),
    ("CFG", "1000", "cfg 1000.0 is out of range"),
    ("Clip skip", "0", "Clip skip 0"),
    ("Checkpoint", "nothing-here", "nothing-here"),
)


def test_wrong_input_says_so_and_keeps_the_form(page: Any, form: Form) -> None:
    form.prompt("a green star", steps=2)
    form.unfold("More")
    for label, value, words in WRONG:
        before = form.field(label).input_value()
        form.fill(label, value)
        page.keyboard.press("Tab")
        form.generate()
        expect(page.locator("#ld-message .ld-message")).to_contain_text(words)
        form.holds(label, value)
        form.holds("Prompt", "a green star")
        form.fill(label, before)
    form.choose("Checkpoint", DEMO)  # the name alone, typed, is no choice


def test_a_picture_too_large_for_the_cpu_is_refused_at_once(
    page: Any, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(too_large, "DAY", 0)  # not every machine is slow
    form.prompt()
    form.fill("Width", 8192)
    form.fill("Height", 8192)
    form.generate()
    message = page.locator("#ld-message .ld-message")  # may still be the one of the test before
    expect(message).to_have_text(
        re.compile("^A picture of 8192x8192 .* enlarge the result in tiles .“Tiled upscale”.[.]$")
    )
    monkeypatch.undo()
    form.fill("Width", 64)
    form.fill("Height", 64)
    form.generate()
    form.wait_for("Done")


def test_settings_are_remembered(open_page: Any, form: Form) -> None:
    form.prompt("a blue square", steps=2)
    form.fill("CFG", 5)
    form.generate()
    form.wait_for("Done")
    again = Form(open_page())
    again.holds("Prompt", "a blue square")
    again.holds("CFG", "5")


def falls_silent(page: Any) -> None:
    """Fails if the form keeps asking the server after its changes were answered, for which a click would wait."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/gradio_api/run/" in request.url else None)
    page.wait_for_timeout(1500)
    sent.clear()
    page.wait_for_timeout(500)
    assert not sent


def test_shapes_and_swap(page: Any, form: Form) -> None:
    form.holds("Shape", "Square 128 × 128")
    form.choose("Shape", "Portrait 128 × 192")
    form.holds("Height", "192")
    page.locator("#ld-swap").click()
    form.holds("Width", "192")
    form.holds("Height", "128")
    form.holds("Shape", "Landscape 192 × 128")
    form.choose("Shape", "Own size", shown="Landscape 192 × 128")  # it is still that size
    width = form.field("Width")
    for words in ("192", "256", "320", "136"):  # quicker than answers come
        width.press("Control+a")
        page.keyboard.type(words, delay=15)
    falls_silent(page)
    form.holds("Shape", "Own size")
    form.fill("Width", 136)
    form.holds("Shape", "Own size")


def test_another_checkpoint_keeps_a_shape_that_fits_it(page: Any, form: Form) -> None:
    form.fill("Width", 512)
    form.fill("Height", 768)
    form.holds("Shape", "Own size")
    with page.expect_response(re.compile("/gradio_api/run/")):
        page.locator("#ld-refresh").click()
    form.choose("Checkpoint", TINY)
    form.holds("Shape", "Portrait 512 × 768")
    form.choose("Checkpoint", DEMO)
    form.holds("Shape", "Square 128 × 128")


def test_what_is_typed_while_the_page_loads_is_kept(context: Any, served: Served) -> None:
    served.settings.write_text(json.dumps({"checkpoint": DEMO, "prompt": "the last one", "cfg": 4.5, "width": 192}))
    page, held = context.new_page(), []
    page.route("**/gradio_api/run/predict*", lambda route: held.append(route))
    page.goto(served.url)
    form = Form(page)
    form.fill("Prompt", "typed early")
    form.fill("Steps", 3)
    while not held:  # the form's values come with this request
        page.wait_for_timeout(50)
    page.route("**/gradio_api/run/predict*", lambda route: route.continue_())
    for route in held:
        route.continue_()
    wait_until_ready(page)
    for label, value in {"Prompt": "typed early", "Steps": "3", "CFG": "4.5", "Width": "192"}.items():
        form.holds(label, value)
