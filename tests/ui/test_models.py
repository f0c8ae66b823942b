"""The first picture from the demo's examples, and the cards of models, as a person uses them in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.catalog.header_files import save_header
from tests.ui.conftest import DEMO, TINY, Form, Served, axe_finds
from tests.ui.test_layout import SIDEWAYS, WIDTHS

HOSTILE = '<img src=x onerror="throw 1">'


@pytest.fixture
def only_demo(served: Served) -> Iterator[Path]:
    """The model folder with the demo as its only checkpoint, and with files of strangers; put back at the end."""
    models = served.handlers.folders.root / "models"
    own, aside = models / "checkpoints" / TINY, models / TINY
    own.rename(aside)
    loras = models / "loras" / "cards"
    save_header(loras / "water.safetensors", {"ss_base_model_version": "sdxl_base_v1-0"})
    save_header(
        loras / "line.safetensors",
        {"ss_base_model_version": HOSTILE, "modelspec.trigger_phrase": f"pen, {HOSTILE}"},
        {"x_attn2_to_k.lora_down.weight": [4, 128]},
    )
    (loras / "line.json").write_text('{"preferred weight": 0.7}')
    Image.new("RGB", (600, 600), "teal").save(loras / "line.preview.png")
    emblem = save_header(models / "embeddings" / "emblem.safetensors", shapes={"emb_params": [4, 768]})
    yield models
    aside.rename(own)
    for path in (*loras.iterdir(), emblem, models / "checkpoints" / "demo.preview.png"):
        path.unlink(missing_ok=True)
    loras.rmdir()


def card(page: Any, name: str) -> Any:
    return page.locator(".ld-model-card:visible", has=page.get_by_text(name, exact=True))


def test_from_an_example_to_a_picture_to_cards(only_demo: Path, page: Any, form: Form, served: Served) -> None:
    page.locator(".ld-chips button", has_text="red circle").click()
    form.holds("Prompt", "a red circle on a blue background")
    expect(page.locator("#ld-checkpoint-line")).to_have_text("A small SD1.x · native size 128")
    assert "a red circle" in served.handlers.history.text(form.make(served))
    expect(page.locator("#ld-examples")).to_be_hidden()
    page.locator("#ld-picture-thumbnail").click()
    assert "thumbnail of demo" in form.message("picture-message")
    assert (only_demo / "checkpoints" / "demo.preview.png").exists()

    form.show("Models")
    check_lora(page, form)
    check_filters(page)
    check_embedding(page, form)
    check_checkpoints(page, form)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(600)  # until the colours have faded into the new ones
        assert axe_finds(page) == []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate(SIDEWAYS) == []


def check_lora(page: Any, form: Form) -> None:
    """Uses the keyboard only: Enter and Space on the focused card and word."""
    line, water = card(page, "line"), card(page, "water")
    expect(line.locator("img")).to_be_visible()
    expect(water.locator(".ld-model-family")).to_have_text("for SDXL")
    expect(line.locator(".ld-model-family")).to_have_text(HOSTILE[:40])
    form.fill("Prompt", "a cat")
    button, word = line.locator(".ld-model-main"), line.locator(".ld-model-word")
    button.press("Enter")
    form.holds("Prompt", "a cat <lora:line:0.7>")
    expect(button).to_have_attribute("aria-pressed", "true")
    word.press("Space")
    form.holds("Prompt", f"a cat <lora:line:0.7>, pen, {HOSTILE}")
    word.press("Space")
    form.fill("Prompt", "<lora:lines:1> and <lora:cards/line:0.2:0.3>")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.press("Enter")
    form.holds("Prompt", "<lora:lines:1> and")
    expect(button).to_have_attribute("aria-pressed", "false")


def check_filters(page: Any) -> None:
    shown = page.locator(".ld-model-card:visible .ld-model-name")
    page.get_by_label("Filter").fill("SDXL wat")
    expect(shown).to_have_text(["water"])
    page.get_by_label("Filter").fill("")
    page.get_by_label("Folder").select_option("cards")
    expect(shown).to_have_text(["line", "water"])
    page.get_by_label("Kind").select_option("checkpoints")
    expect(shown).to_have_text(["demo"])


def check_embedding(page: Any, form: Form) -> None:
    page.get_by_label("Kind").select_option("embeddings")
    emblem = card(page, "emblem")
    expect(emblem.locator(".ld-model-family")).to_have_text("for another SD1.x")
    form.fill("Prompt", "a dog")
    emblem.locator(".ld-model-main").press("Enter")
    form.holds("Prompt", "a dog, emblem")
    emblem.get_by_role("button", name="Negative").press("Enter")
    form.holds("Negative prompt", "emblem")
    emblem.locator(".ld-model-main").press("Enter")
    form.holds("Prompt", "a dog")


def check_checkpoints(page: Any, form: Form) -> None:
    page.get_by_label("Kind").select_option("checkpoints")
    demo = card(page, "demo").locator(".ld-model-main")
    expect(demo).to_have_attribute("aria-pressed", "true")
    expect(demo.locator("img")).to_be_visible()
    form.field("Checkpoint").fill("none")
    form.field("Checkpoint").press("Enter")
    expect(demo).to_have_attribute("aria-pressed", "false")
    demo.press("Enter")
    form.holds("Checkpoint", DEMO)
    expect(demo).to_have_attribute("aria-pressed", "true")
