"""Tests what a browser tab remembers, and what the headers of folded sections say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect

from tests.ui.conftest import CANNY, INK, Form, Served, axe_finds, wait_until_ready


def test_tabs_have_their_own_form_and_folded_sections_say_what_is_in_force(
    used_form: Form, open_page: Any, served: Served, tmp_path: Path
) -> None:
    Image.effect_noise((64, 64), 90).save(tmp_path / "edges.png")
    first = used_form
    first.prompt("a green star", steps=1)
    first.unfold("LoRA and VAE")
    first.choose("LoRA 1", INK)
    first.page.get_by_label("number input for LoRA 1 strength").fill("0.8")
    first.unfold("ControlNet")
    first.choose("ControlNet 1 model", CANNY)
    first.page.locator("#ld-control-1 input[type=file]").set_input_files(tmp_path / "edges.png")
    first.page.locator("#ld-control-1 img").wait_for()
    first.holds("Preprocessor 1", "canny")  # it comes from the server, after the picture
    first.make(served)

    second = Form(open_page())  # begins with the last used form
    folded = second.page.locator("#ld-form .label-wrap")
    expect(folded.filter(has_text="LoRA and VAE: demo_ink 0.8")).to_be_visible()
    expect(folded.filter(has_text="ControlNet: demo_canny (canny) 1")).to_be_visible()
    assert axe_finds(second.page) == []
    second.holds("Prompt", "a green star")
    second.prompt("a red circle", steps=1)
    second.make(served)  # the control picture came along
    second.page.locator("#ld-control-panel-off").click()
    expect(folded.filter(has_text="ControlNet:")).to_have_count(0)
    expect(second.page.locator("#ld-control-panel-off")).to_have_count(0)

    first.page.reload()
    wait_until_ready(first.page)
    first.holds("Prompt", "a green star")
