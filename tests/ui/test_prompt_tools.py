"""Tests the tools beside the prompts in a browser: token counts, styles, wildcards, and weights by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from modules.catalog.styles import read_styles, styles_file
from modules.images.save import read_parameters
from tests.ui.conftest import TWO_FRAMES, Form, Served, axe_finds

# The prompt with its selection in [ ], or with | for the cursor; the keys; and what stands there then.
WEIGHTS = [
    ("a re|d cat", "Up", "a ([red]:1.1) cat"),
    ("a [red cat] here", "Up Up", "a ([red cat]:1.2) here"),
    ("a [red cat ]here", "Down", "a ([red cat]:0.9) here"),
    ("a (red:1.1|) cat", "Down", "a [red] cat"),
    ("a (big red:1.25) c|at", "Up", "a (big red:1.25) ([cat]:1.1)"),
    ("((a c|at:1.2) on a mat:1.3)", "Up", "(([a cat]:1.3) on a mat:1.3)"),
    ("((a cat:1.2) on a m|at:1.3)", "Down", "([(a cat:1.2) on a mat]:1.2)"),
    (r"a \(ca|t:1.1\) here", "Up", r"a \(([cat]:1.1):1.1\) here"),
    ("a cat <lora:in|k:0.8> here", "Down", "a cat <[lora:ink:0.7]> here"),
    ("a cat, | b", "Up", "a cat, | b"),
    ("a c|at", "Up Up Up z z", "a (cat:1.1)"),
]


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


@pytest.fixture
def wild(served: Served) -> Iterator[Served]:
    folder = served.handlers.folders.root / "models" / "wildcards"
    file = folder / "beasts.txt"
    file.write_text("cat\n")
    yield served
    file.unlink()
    styles_file(served.handlers.folders).unlink(missing_ok=True)


def test_ctrl_up_and_down_change_weights(page: Any, form: Form) -> None:
    field = form.field("Prompt")
    for before, keys, after in WEIGHTS:
        text, start, end = marked(before)
        field.fill(text)
        field.evaluate("(field, place) => field.setSelectionRange(...place)", [start, end])
        for key in keys.split():
            field.press("Control+z" if key == "z" else f"Control+Arrow{key}")
        if "z" in keys:
            expect(field).to_have_value(after)
            continue
        now = field.evaluate("(field) => [field.value, field.selectionStart, field.selectionEnd]")
        assert now == list(marked(after)), before
    field.fill("a red circle")
    field.press("Control+ArrowUp")
    expect(page.locator("#ld-prompt textarea")).to_have_value("a red (circle:1.1)")


def marked(text: str) -> tuple[str, int, int]:
    """Returns the text without its marks, and the places of the marks."""
    if "|" in text:
        place = text.index("|")
        return text.replace("|", ""), place, place
    start, end = text.index("["), text.index("]") - 1
    return text.replace("[", "").replace("]", ""), start, end


def test_count_styles_and_wildcards(page: Any, form: Form, wild: Served) -> None:
    count, negative = (page.locator(f"#ld-{name}-length") for name in ("prompt", "negative-prompt"))
    form.fill("Prompt", "a red circle <lora:demo_ink:0.5> BREAK on (blue:1.2) ground")
    expect(count).to_have_text("6 / 150 tokens in 2 chunks; the next start at “on blue ground…”")
    expect(negative).to_have_text("0 / 75 tokens")

    page.get_by_role("button", name="Styles and wildcards").click()
    page.get_by_role("button", name="__beasts__").wait_for()
    page.evaluate(TWO_FRAMES)
    form.fill("Prompt", "{prompt} in ink")
    form.fill("Negative prompt", "grey")
    form.fill("Name of a new style", "ink")
    page.locator("#ld-style-save").click()
    assert "ink" in form.message("styles-message")
    assert [(style.prompt, style.negative_prompt) for style in read_styles(wild.handlers.folders)] == [
        ("{prompt} in ink", "grey")
    ]

    form.fill("Negative prompt", "")
    form.prompt("a __beest__", steps=1)
    expect(count).to_contain_text("beasts")  # the nearest name
    form.fill("Prompt", "a ")
    form.field("Prompt").press("End")
    page.get_by_role("button", name="__beasts__").click()
    form.holds("Prompt", "a __beasts__")
    form.field("Styles").click()
    page.get_by_role("option", name="ink", exact=True).click()
    expect(count).to_have_text("4 / 75 tokens, for one choice")
    expect(negative).to_have_text("1 / 75 tokens")
    assert axe_finds(page) == []

    settings = read_parameters(form.make(wild))
    assert settings.startswith("a cat in ink\nNegative prompt: grey")
    page.locator("#ld-picture-use").click()
    form.holds("Prompt", "a cat")
    page.get_by_role("button", name="Styles and wildcards: ink").wait_for()
    page.locator("#ld-styles-apply").click()
    form.holds("Prompt", "a cat in ink")
    form.holds("Negative prompt", "grey")
    expect(page.locator("#ld-styles-panel-off")).to_be_hidden()
    page.get_by_role("button", name="Styles and wildcards").click()  # folded, as other tests expect it
