"""Makes the pictures of docs/ui.md: python -m tests.ui.screenshots URL PHOTO, with the app running at URL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.ui.conftest import Form, wait_until_ready

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"


def shoot(page: Any, name: str) -> None:
    page.mouse.move(5, 5)
    page.wait_for_timeout(700)
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(80, dither=Image.Dither.NONE).save(path, optimize=True)  # a quarter


def open_form(page: Any) -> None:
    """Opens the form as last used, without messages."""
    page.evaluate("sessionStorage.clear()")
    page.reload()
    wait_until_ready(page)


def generate_states(page: Any, form: Form) -> None:
    form.prompt(steps=20)
    form.fill("CFG", 5)
    form.fill("Seed", 11)
    form.fill("Batch count", 2)
    form.generate()
    form.wait_for("Done")
    page.evaluate("window.scrollTo(0, 0)")
    shoot(page, "generate")
    form.prompt("a sunset over the ocean", steps=400)
    form.generate()
    page.locator("img.ld-preview").wait_for()
    page.wait_for_timeout(4000)
    shoot(page, "running")
    page.locator("#ld-cancel").click()
    form.wait_for("Cancelled")
    form.fill("Width", 100)
    form.generate()
    form.message()
    shoot(page, "message")
    form.fill("Width", 128)
    open_form(page)


def other_states(page: Any, form: Form, photo: str) -> None:
    page.get_by_role("tab", name="Image to image").click()
    page.locator("#ld-editor input[type=file]").first.set_input_files(photo)
    page.wait_for_timeout(2500)
    page.locator("#ld-editor").scroll_into_view_if_needed()  # the mouse reaches only what is on screen
    box = page.locator("#ld-editor canvas").first.bounding_box()
    y = box["y"] + box["height"] * 0.5
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=9)
    page.mouse.up()
    page.locator("#ld-modes").scroll_into_view_if_needed()
    page.evaluate("window.scrollTo(0, 420)")
    shoot(page, "inpaint")
    page.evaluate("window.scrollTo(0, 0)")
    page.get_by_role("tab", name="Text to image").click()
    form.prompt(steps=12)
    form.fill("Width", 128)
    page.get_by_label("Stable-Fast", exact=True).check()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#ld-compare").click()
    page.locator("#ld-slider img").first.wait_for()
    page.wait_for_timeout(1500)
    shoot(page, "compare")


def main(url: str, photo: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        page.goto(url)
        open_form(page)
        form = Form(page)
        generate_states(page, form)
        other_states(page, form, photo)
        page.get_by_role("tab", name="Help").click()
        shoot(page, "first_run")
        page.set_viewport_size({"width": 390, "height": 844})
        page.get_by_role("tab", name="Pictures").click()
        page.evaluate("window.scrollTo(0, 0)")
        shoot(page, "phone")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
