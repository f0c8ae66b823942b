"""Features for pictures: image to image with a drawn mask, recalling settings, history, comparison, grids."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from modules.images.save import read_parameters
from tests.ui.conftest import CANNY, INK, PATIENCE, PROMPT, Form, Served

A1111_TEXT = (
    "a yellow star, (bright:1.2)\nNegative prompt: dark\n"
    "Steps: 7, Sampler: Euler a, Schedule type: Karras, CFG scale: 5.5, Seed: 4242, Size: 192x128, Clip skip: 2"
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An initial picture with a green left half and a white right half."""
    pixels = np.full((128, 192, 3), 255, dtype=np.uint8)
    pixels[:, :96] = (20, 160, 60)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def make_one(form: Form, served: Served, *, seed: int = 5, steps: int = 2) -> None:
    form.prompt(steps=steps)
    form.fill("Seed", seed)
    form.make(served)


def shows_colour(canvas: Any, wanted: Callable[[Any], Any]) -> bool:
    """Returns whether a good part of the canvas has the wanted colour."""
    pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"), dtype=int)
    return int(wanted(pixels).sum()) > 50


def wait_colour(page: Any, canvas: Any, wanted: Callable[[Any], Any]) -> None:
    """Waits for the colour, since a canvas can only be checked by its pixels."""
    for _ in range(PATIENCE // 400):
        if shows_colour(canvas, wanted):
            return
        page.wait_for_timeout(400)  # a look at the canvas costs more than the wait
    raise AssertionError("the editor never showed it")


def is_green(pixels: Any) -> Any:
    return (pixels[..., 0] < 90) & (pixels[..., 1] > 120) & (pixels[..., 2] < 130)


def is_brush(pixels: Any) -> Any:
    """Finds the translucent paint on white."""
    return (pixels[..., 0] > 200) & (pixels[..., 0] - pixels[..., 1] > 60) & (pixels[..., 2] > 100)


def test_image_to_image_with_a_drawn_mask(open_page: Any, served: Served, photo: Path) -> None:
    page = open_page()
    form = Form(page)
    form.prompt(steps=3)
    page.get_by_role("tab", name="Image to image").click()
    canvas = page.locator("#ld-editor canvas").first
    canvas.wait_for()  # the editor accepts no picture before this
    page.locator("#ld-editor input[type=file]").first.set_input_files(photo)
    wait_colour(page, canvas, is_green)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.70, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.80, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    wait_colour(page, canvas, is_brush)
    form.generate()
    form.wait_for("Done")
    newest = served.pictures()[0]
    assert '"mask"' in read_parameters(newest).replace("\\", "")
    made = np.asarray(Image.open(newest).convert("RGB"), dtype=int)
    assert made.shape == (128, 192, 3)
    start = np.asarray(Image.open(photo), dtype=int)
    assert np.abs(made[:, :64] - start[:, :64]).max() == 0, "the unmasked part is the picture's own"
    assert np.abs(made[48:80, 130:160] - start[48:80, 130:160]).max() > 0, "the masked part is repainted"


def test_use_these_settings_brings_everything_back(page: Any, form: Form, served: Served) -> None:
    make_one(form, served, seed=77)
    form.prompt("something else", steps=9)
    page.locator("#ld-picture-use").click()
    form.holds("Prompt", PROMPT)
    form.holds("Seed", "77")
    form.holds("Steps", "2")
    first = served.pictures()[0]
    assert form.make(served).read_bytes() == first.read_bytes(), "the same settings make the same file"


DROP = """([selector, name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/png'}));
  const inside = document.querySelector(selector + ' button') || document.querySelector(selector);
  inside.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: data}));
}"""


def save_theirs(photo: Path, seed: str) -> Path:
    info = PngInfo()
    info.add_text("parameters", A1111_TEXT.replace("4242", seed))
    Image.open(photo).save(photo.with_name("theirs.png"), pnginfo=info)
    return photo.with_name("theirs.png")


def test_settings_of_pictures_that_are_chosen_and_dropped(open_page: Any, photo: Path) -> None:
    page = open_page()
    form = Form(page)
    form.unfold("Restore settings from a picture")
    page.locator("input[type=file]").last.set_input_files(photo)
    assert "no generation text" in form.message("restore-message")
    page.locator("#ld-restore input[type=file]").wait_for(state="attached")
    page.locator("input[type=file]").last.set_input_files(save_theirs(photo, "4242"))
    form.holds("Seed", "4242")
    form.holds("Prompt", "a yellow star, (bright:1.2)")
    form.holds("Negative prompt", "dark")
    for label, wanted in {"Steps": "7", "CFG": "5.5", "Width": "192", "Height": "128", "Sampler": "Euler a"}.items():
        form.holds(label, wanted)
    for seed in ("31", "777"):
        page.locator("#ld-restore input[type=file]").wait_for(state="attached")
        page.evaluate(DROP, ["#ld-restore", f"it's {seed}.png", list(save_theirs(photo, seed).read_bytes())])
        form.holds("Seed", seed)
        expect(page.locator("#ld-restore-message .ld-note")).to_contain_text("Settings taken from")


def test_image_to_image_needs_a_picture_and_takes_a_dropped_one(open_page: Any, photo: Path) -> None:
    page = open_page()
    form = Form(page)
    form.prompt()
    page.get_by_role("tab", name="Image to image").click()
    form.generate()
    assert "needs a picture" in form.message("init-message")
    canvas = page.locator("#ld-editor canvas").first
    canvas.wait_for()
    page.evaluate(DROP, ["#ld-editor", "photo.png", list(photo.read_bytes())])
    wait_colour(page, canvas, is_green)


def test_send_to_image_to_image(open_page: Any, served: Served) -> None:
    page = open_page()
    form = Form(page)
    make_one(form, served)
    page.locator("#ld-picture-init").click()
    page.locator("#ld-picture-details .ld-note").wait_for()
    canvas = page.locator("#ld-editor canvas").first
    wait_colour(page, canvas, lambda pixels: np.ptp(pixels, axis=-1) > 60)  # coloured: the picture is in the editor
    assert "Init image" in read_parameters(form.make(served))


def test_hires_fix_from_the_gallery(page: Any, form: Form, served: Served) -> None:
    make_one(form, served)
    small = served.pictures()[0]
    form.unfold("HiresFix")
    form.choose("Upscaler", "latent bilinear")
    page.locator("#ld-picture-hires").click()
    expect(page.locator("#ld-picture-text textarea")).to_have_value(re.compile("Init image"))
    large = served.pictures()[0]
    assert large != small and Image.open(large).size == (256, 256)
    seed = re.compile(r"Seed: (\d+)")
    assert seed.findall(read_parameters(large)) == seed.findall(read_parameters(small))
    assert "Init image" in read_parameters(large) and "Hires upscaler: bilinear" in read_parameters(large)


def test_a_lora_of_the_form_comes_back_with_both_strengths(page: Any, form: Form, served: Served) -> None:
    make_one(form, served)
    plain = served.pictures()[0].read_bytes()
    form.unfold("LoRA and VAE")
    form.choose("LoRA 1", INK)
    expect(form.field("LoRA 2")).to_be_visible()
    form.fill("LoRA 1 text", 0.5)
    made = form.make(served)
    assert made.read_bytes() != plain
    form.fill("LoRA 1 text", "")
    form.choose("LoRA 1", "None")
    assert np.array_equal(Image.open(form.make(served)), Image.open(io.BytesIO(plain))), "nothing of the LoRA is left"
    page.get_by_role("tab", name="History").click()
    page.locator("#ld-history img").nth(1).click()
    page.locator("#ld-history-use").click()
    form.holds("LoRA 1", INK)
    form.holds("LoRA 1 text", "0.5")


def test_a_control_net_of_the_form(page: Any, form: Form, served: Served, photo: Path) -> None:
    make_one(form, served)
    plain = Image.open(served.pictures()[0])
    form.unfold("ControlNet")
    form.choose("ControlNet 1 model", CANNY)
    form.generate()
    assert "has no picture" in form.message("control-message")
    expect(page.locator("#ld-control-message")).to_be_in_viewport()
    expect(page.locator("#ld-gallery img").first).to_be_visible()  # the last picture stays
    form.wait_for("Not started")
    page.locator("#ld-control-1 input[type=file]").set_input_files(photo)
    page.locator("#ld-control-1 img").wait_for()
    form.holds("Preprocessor 1", "canny")  # the picture is no edge map
    page.locator("#ld-control-map-1 img").wait_for()
    made = form.make(served)
    expect(page.locator("#ld-control-message .ld-message")).to_have_count(0)
    assert not np.array_equal(Image.open(made), plain)
    assert CANNY in read_parameters(made)
    page.locator("#ld-picture-use").click()
    form.holds("ControlNet 1 model", CANNY)
    assert form.make(served).read_bytes() == made.read_bytes()


def test_hires_fix_to_a_size_comes_back(page: Any, form: Form, served: Served) -> None:
    form.unfold("HiresFix")
    page.get_by_label("HiresFix: enlarge", exact=False).check()
    form.fill("HiresFix width", 160)
    form.fill("HiresFix height", 192)
    form.choose("HiresFix scheduler", "Simple")
    form.prompt(steps=2)
    first = form.make(served)
    assert Image.open(first).size == (160, 192)
    form.fill("HiresFix width", "")
    form.fill("HiresFix height", "")
    form.choose("HiresFix scheduler", "As above")
    page.locator("#ld-picture-use").click()
    form.holds("HiresFix width", "160")
    form.holds("HiresFix height", "192")
    form.holds("HiresFix scheduler", "Simple")


def test_history_search_and_delete(page: Any, form: Form, served: Served) -> None:
    make_one(form, served, seed=987654)
    form.search("987654 circle")
    page.locator("#ld-history-words").get_by_text("1-1 of 1", exact=True).wait_for()
    page.get_by_label("Day", exact=True).click()
    page.get_by_role("option", name=re.compile(r"^\d+ \w+ 20\d\d \(\d+\)")).first.click()
    page.locator("#ld-history img").first.click()
    expect(page.locator("#ld-history-text textarea")).to_have_value(re.compile("987654"))
    page.locator("#ld-history-delete").click()
    page.locator("#ld-history-confirmed").wait_for()
    wanted = [path for path in served.pictures() if "987654" in path.name]
    assert len(wanted) == 1, "asked before deleting"
    page.locator("#ld-history-confirmed").click()
    page.locator("#ld-history-words", has_text="Nothing found").wait_for()
    assert not wanted[0].exists()


def show_history(form: Form, *, seed: int) -> None:
    """Shows the history, and waits until its first picture is the one with this seed."""
    form.show("History")
    expect(form.page.locator("#ld-history img").first).to_have_attribute("src", re.compile(f"-{seed}.png"))


@pytest.fixture
def hold_history(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Callable[[], None]]:
    """From each call on, delays all history lists until the returned function is called."""
    search = served.handlers.history.search

    def hold() -> Callable[[], None]:
        free = threading.Event()

        def late(*arguments: Any, **settings: Any) -> Any:
            free.wait(PATIENCE / 1000)
            return search(*arguments, **settings)

        monkeypatch.setattr(served.handlers.history, "search", late)
        return free.set

    return hold


def test_a_click_while_the_same_list_comes_again_is_kept(
    page: Any, form: Form, served: Served, hold_history: Any
) -> None:
    make_one(form, served, seed=31)
    show_history(form, seed=31)
    form.show("Pictures")
    free = hold_history()
    form.show("History")
    page.locator("#ld-history img").first.click()
    page.locator("#ld-history .preview img").first.wait_for()
    free()
    text = page.locator("#ld-history-text textarea")
    expect(text).to_have_value(re.compile("Seed: 31"))
    page.wait_for_timeout(1000)  # past the answer that was held back
    expect(page.locator("#ld-history .preview img").first).to_be_visible()
    expect(text).to_have_value(re.compile("Seed: 31"))


def test_a_click_on_a_list_that_changes_chooses_no_other_picture(
    page: Any, form: Form, served: Served, hold_history: Any
) -> None:
    make_one(form, served, seed=32)
    show_history(form, seed=32)
    form.show("Pictures")
    form.fill("Seed", 33)
    form.make(served)
    free = hold_history()
    form.show("History")
    page.locator("#ld-history img").first.click()  # still the list starting with seed 32
    page.locator("#ld-history .preview img").first.wait_for()
    free()
    expect(page.locator("#ld-history img").first).to_have_attribute("src", re.compile("-33.png"))
    page.wait_for_timeout(1000)  # past the answer to the click
    expect(page.locator("#ld-history-details")).to_be_hidden()


def test_compare_shows_a_slider_and_what_was_measured(page: Any, form: Form) -> None:
    form.prompt(steps=2)
    page.get_by_label("Stable-Fast level", exact=True).click()
    form.options("Stable-Fast level").filter(has_text="graph").click()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#ld-compare").click()
    page.locator("#ld-slider img").first.wait_for()
    both_times = re.compile(r"Without Stable-Fast: \d+\.\d\d s \(left\) · with it \(off\): \d+\.\d\d s \(right\)")
    expect(page.locator("#ld-slider")).to_contain_text(both_times)
    measured = page.locator("#ld-compare-result textarea")
    expect(measured).to_have_value(re.compile("first picture"))
    expect(measured).to_have_value(re.compile("off instead of graph: CUDA graphs need"))


def test_grid_is_one_labelled_picture(page: Any, form: Form, served: Served) -> None:
    form.prompt()
    page.get_by_role("tab", name="Compare").click()
    form.fill("Values of the columns", "1, 2, 3")
    form.fill("Values of the rows", "2, 6")
    page.locator("#ld-grid").click()
    form.wait_for("Done")
    page.locator("#ld-sheet img").first.wait_for()
    width, height = Image.open(served.pictures()[0]).size
    assert width > 3 * 128 and height > 2 * 128


def test_a_grid_that_cannot_be_says_so_in_its_tab(page: Any, form: Form) -> None:
    form.prompt()
    page.get_by_role("tab", name="Compare").click()
    form.fill("Values of the columns", "10, many")
    page.locator("#ld-grid").click()
    page.locator("#ld-grid-message", has_text="not a number").wait_for()
    expect(page.locator("#ld-grid-message")).to_be_in_viewport()
