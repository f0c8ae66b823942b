"""Pictures are dragged from the results and from History to the form's fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from modules.images.save import read_parameters
from tests.ui.conftest import CANNY, Form, Served
from tests.ui.test_pictures import is_green, wait_colour


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def kept(made: Path, field: str, folder: Path) -> np.ndarray:
    """Returns the pixels of the picture that this field of the metadata names."""
    name = re.search(rf'{field}: .*?"image": "([0-9a-f]+\.png)"', read_parameters(made).replace("\\", ""))
    assert name is not None
    return np.asarray(Image.open(folder / "inputs" / name[1]).convert("RGB"))


@pytest.mark.slow
def test_pictures_can_be_dragged_to_the_fields(page: Any, form: Form, served: Served) -> None:
    form.prompt("a green circle on a white background")
    green = form.make(served)
    form.prompt("a red circle on a blue background")
    red = form.make(served)
    page.set_viewport_size({"width": 1280, "height": 3200})  # both ends of each drag are on screen
    form.show("Image to image")
    form.unfold("ControlNet")
    form.unfold("Restore settings from a picture")
    result, history = page.locator("#ld-gallery img").first, page.locator("#ld-history img")
    canvas = page.locator("#ld-editor canvas").first
    canvas.wait_for()
    result.drag_to(page.locator("#ld-editor"))
    wait_colour(page, canvas, lambda pixels: pixels[..., 2] - pixels[..., 1] > 100)
    result.drag_to(page.locator("#ld-control-1"))
    expect(page.locator("#ld-control-1 img")).to_have_attribute("src", re.compile(red.name))
    form.choose("ControlNet 1 model", CANNY)
    form.show("History")
    history.nth(1).drag_to(page.locator("#ld-editor"))
    wait_colour(page, canvas, is_green)  # it took the other one's place
    made = form.make(served)
    for field, dragged in (("Init image", green), ("ControlNet 0", red)):
        assert (kept(made, field, served.output) == np.asarray(Image.open(dragged).convert("RGB"))).all()
    form.show("History")
    expect(history.nth(1)).to_have_attribute("src", re.compile(red.name))
    history.nth(1).drag_to(page.locator("#ld-restore"))
    assert f"Settings taken from {red.name}" in form.message("restore-message"), "the dragged file has its metadata"
    form.holds("Prompt", "a red circle on a blue background")
