"""Measures the page: nothing scrolls sideways, and neither the page nor the picture moves while one is made."""

from __future__ import annotations

from itertools import product
from typing import Any

from playwright.sync_api import expect

from tests.ui.conftest import PATIENCE, PROMPT, STILL, TWO_FRAMES, Form, Served, wait_until_ready

WIDTHS = (320, 390, 768, 1024, 1400, 1920)
FOLDED = ("LoRA and VAE", "Refiner", "HiresFix", "ControlNet", "More", "Restore settings")
# Boxes with a scrollbar below them, which is there as soon as the content is wider than the box.
SIDEWAYS = """() => [...document.querySelectorAll('html, body *')].filter((one) => one.checkVisibility()
    && (one === document.documentElement || ['auto', 'scroll'].includes(getComputedStyle(one).overflowX))
    && one.clientWidth > 0 && one.scrollWidth > one.clientWidth)
  .map((one) => `${one.clientWidth} < ${one.scrollWidth}: ${one.outerHTML.slice(0, 120)}`)"""
# What a finger must hit: buttons, the headers of sections, the boxes to tick, and our sliders.
SMALL_TARGETS = """() => [...document.querySelectorAll(`button:is(.sm, .lg), .label-wrap, .ld-slider,
    .gradio-container label:has(> input[type=checkbox])`)]
  .filter((one) => one.checkVisibility() && one.offsetHeight < 32)
  .map((one) => `${one.offsetHeight}: ${one.outerHTML.slice(0, 120)}`)"""
# Fields and buttons that stand beside each other in one line, and are not equally high.
UNEVEN = """() => [...document.querySelectorAll('.ld-line')].filter((one) => one.checkVisibility()).flatMap((line) => {
  const boxes = [...line.querySelectorAll('.wrap:has(> .wrap-inner), .block > label > input, .ld-small')]
    .map((one) => [one.getBoundingClientRect(), one.outerHTML.slice(0, 120)]);
  return boxes.filter(([one]) => boxes.some(([other]) => one.top < other.bottom && other.top < one.bottom
    && Math.max(Math.abs(one.top - other.top), Math.abs(one.bottom - other.bottom)) > 1))
    .map(([one, words]) => `${one.top} to ${one.bottom}: ${words}`); })"""
# Lists that are too narrow to read.
NARROW = """() => [...document.querySelectorAll('.wrap:has(> .wrap-inner)')].filter((one) => one.checkVisibility()
  && one.clientWidth < 75).map((one) => `${one.clientWidth}: ${one.outerHTML.slice(0, 300)}`)"""
# Tabs that one does not see: Gradio would put them into a menu.
UNSEEN_TABS = """() => [...document.querySelectorAll('.tab-container.visually-hidden')]
  .filter((copies) => copies.parentElement.checkVisibility()).flatMap((copies) => {
    const seen = [...copies.parentElement.querySelectorAll('.tab-container:not(.visually-hidden) > button')]
      .filter((one) => one.getBoundingClientRect().right <= innerWidth).map((one) => one.innerText.trim());
    return [...copies.children].map((one) => one.textContent.trim()).filter((name) => !seen.includes(name));
  })"""
# Where the page begins and how wide it is, and where the picture (or what stands in its place) begins.
PLACES = """() => {
  const box = (name) => [...document.querySelectorAll(name)].find((one) => one.checkVisibility())
    .getBoundingClientRect();
  const main = box('.main.app'), picture = box('.ld-empty, .ld-preview, #ld-gallery');
  return [main.left, main.width, picture.top + scrollY, picture.left].map(Math.round);
}"""
# The same, once a preview is there and as long as no picture is.
PLACES_OF_PREVIEW = f"""() => {{
  const seen = (name) => [...document.querySelectorAll(name)].some((one) => one.checkVisibility());
  return seen('.ld-preview') && !seen('#ld-gallery') && ({PLACES})();
}}"""


def test_nothing_scrolls_sideways_and_a_phone_has_its_own_order(page: Any, form: Form) -> None:
    found: dict[str, list[str]] = {}
    for state in ("folded", "open"):
        for width, scheme in product(WIDTHS, ("light", "dark")):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 844})
            page.evaluate(TWO_FRAMES)
            page.wait_for_function(STILL)  # a button's margin takes its time, too
            found[f"{state}, {width}, {scheme}"] = [
                line for measure in (SIDEWAYS, UNEVEN, NARROW, UNSEEN_TABS) for line in page.evaluate(measure)
            ]
        for name in FOLDED if state == "folded" else ():
            form.unfold(name)
    assert {place: boxes for place, boxes in found.items() if boxes} == {}
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.querySelector('#ld-generate').offsetWidth > 250")  # it has a line of its own
    names = ("#ld-generate", "#ld-cancel", "#ld-stage", ".ld-empty", "#ld-form")
    boxes = [page.locator(name).bounding_box() for name in names]
    tops = [box["y"] for box in boxes]
    assert tops == sorted(tops), "the picture follows Generate and Cancel"
    assert page.locator("#ld-skip").bounding_box()["y"] == tops[1], "the small buttons share a line"
    assert tops[2] - tops[0] < 150
    assert boxes[0]["width"] > boxes[1]["width"]


def test_page_and_picture_stay_where_they_are(page: Any, form: Form) -> None:
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 844})
        form.prompt(PROMPT, steps=20)
        page.wait_for_timeout(800)  # until the tokens are counted, and the page has taken its new width
        places = [page.evaluate(PLACES)]
        form.generate()
        places.append(page.wait_for_function(PLACES_OF_PREVIEW).json_value())
        form.wait_for("Done")
        page.locator("#ld-gallery img").first.wait_for()
        expect(page.locator(".ld-preview")).to_have_count(0)
        places.append(page.evaluate(PLACES))
        assert max(abs(now - first) for place in places for now, first in zip(place, places[0], strict=True)) <= 1, (
            places
        )


def test_a_phone_shows_what_generate_does_and_has_targets_for_fingers(browser: Any, served: Served) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    wait_until_ready(page)
    assert page.evaluate(SMALL_TARGETS) == []
    assert page.get_by_label("Shape", exact=True).bounding_box()["width"] > 70, "one can read the chosen shape"
    buttons = page.locator("#ld-go")
    Form(page).prompt(PROMPT, steps=400)
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("#ld-generate").dispatch_event("click")
    page.locator(".ld-preview").wait_for()
    expect(buttons).to_be_in_viewport(ratio=0.95)
    expect(page.locator(".ld-preview")).to_be_in_viewport(ratio=0.95)
    page.locator("#ld-cancel").tap()
    Form(page).wait_for("Cancelled")
    context.close()
