"""Extras and the tiled upscale in the browser: pictures enlarged, sent from a result, and repainted in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from modules.images.save import read_parameters
from tests.tiny_project import save_photo
from tests.ui.conftest import PROMPT, TINY, Form, Served, axe_finds
from tests.ui.test_pictures import is_green, wait_colour


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two pictures, and a file that only says it is one."""
    (tmp_path / "bad.png").write_bytes(b"no picture")
    return [save_photo(tmp_path / "one.png", 64, 32), tmp_path / "bad.png", save_photo(tmp_path / "two.png", 32, 64)]


def newest_sizes(served: Served, number: int) -> list[tuple[int, int]]:
    return [Image.open(path).size for path in served.pictures()[:number]]


def test_several_pictures_and_a_finished_one_are_enlarged(
    page: Any, form: Form, served: Served, photos: list[Path]
) -> None:
    form.show("Extras")
    page.locator("#ld-extras-run").click()
    assert "drop one or several" in form.message("extras-message")
    page.locator("#ld-extras-files input[type=file]").set_input_files(photos)
    expect(page.locator("#ld-extras-files")).to_contain_text("two")
    expect(page.locator("#ld-extras-message .ld-message")).to_have_count(0)
    before = len(served.pictures())
    page.locator("#ld-extras-run").click()
    failure = '1 of 3 pictures could not be enlarged. "bad.png" is not a picture'
    expect(page.locator("#ld-extras-message")).to_contain_text(failure)
    expect(page.locator("#ld-extras .thumbnail-item")).to_have_count(2)
    assert len(served.pictures()) == before + 2 and sorted(newest_sizes(served, 2)) == [(64, 128), (128, 64)]
    assert axe_finds(page) == []

    form.show("Pictures")
    form.prompt()
    made = form.make(served)
    page.locator("#ld-picture-extras").click()
    expect(page.locator("#ld-extras-files")).to_contain_text(made.stem)
    page.get_by_label("Scale to").check()
    form.fill("Result width", 200)
    form.fill("Result height", 100)
    before = len(served.pictures())
    page.locator("#ld-extras-run").click()
    while len(served.pictures()) == before:  # "Done" still stands there from the request before
        page.wait_for_timeout(50)
    form.wait_for("Done")
    (newest, *_) = served.pictures()
    assert Image.open(newest).size == (200, 100)
    text = read_parameters(newest)
    assert (
        text.startswith(PROMPT) and text.endswith("Postprocess upscaler: lanczos") and newest.stem[6:] == made.stem[6:]
    )


@pytest.mark.slow
def test_a_picture_is_repainted_in_tiles(page: Any, form: Form, served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (72, 40), (20, 160, 60)).save(tmp_path / "green.png")
    form.prompt(steps=2)
    form.choose("Checkpoint", TINY)
    page.get_by_role("tab", name="Image to image").click()
    canvas = page.locator("#ld-editor canvas").first
    canvas.wait_for()  # the editor accepts no picture before this
    page.locator("#ld-editor input[type=file]").first.set_input_files(tmp_path / "green.png")
    wait_colour(page, canvas, is_green)
    form.unfold("Tiled upscale")
    page.get_by_label("Enlarge the picture, and repaint it in tiles").check()
    form.fill("Tile width", 64)
    form.fill("Tile height", 64)
    form.fill("Overlap", 16)
    form.generate()
    form.wait_for("Done")
    expect(page.get_by_role("button", name="Tiled upscale: 2x, lanczos")).to_be_visible()
    assert newest_sizes(served, 1) == [(144, 80)]
    page.locator("#ld-tiled-panel-off").click()
    page.locator("#ld-picture-use").click()
    expect(page.get_by_label("Enlarge the picture, and repaint it in tiles")).to_be_checked()
    form.holds("Overlap", "16")
    form.holds("Tile width", "64")
