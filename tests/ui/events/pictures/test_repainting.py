"""Parts of a finished picture are marked and repainted; the new picture is then extended to one side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modules.generation.options import GenerationOptions, HiresOptions, InitImage, TiledOptions
from modules.images.masks.parts import separate_parts
from modules.images.save import read_parameters
from tests.ui.conftest import TWO_FRAMES, Form, Served, axe_finds
from ui.events.pictures.repainting import of_parts


def test_the_models_and_the_seed_stay_but_the_passes_are_new() -> None:
    old = GenerationOptions(
        prompt="a cat",
        width=640,
        height=512,
        seed=7,
        steps=30,
        checkpoint="x",
        hires=HiresOptions(),
        tiled=TiledOptions(),
        refiner="y",
    )
    init = InitImage(image=Path("old.png"), mask=Path("mask.png"), denoise=0.4, each_part=True)
    assert of_parts(old, init, "  ") == GenerationOptions(prompt="a cat", seed=7, steps=30, checkpoint="x", init=init)
    assert of_parts(old, init, "a green eye").prompt == "a green eye"


def stroke(page: Any, box: dict[str, float], across: float, down: float) -> None:
    """Paints a short line in the middle of the editor; the place counts pixels from its centre."""
    x, y = box["x"] + box["width"] / 2 + across, box["y"] + box["height"] / 2 + down
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=5)
    page.mouse.up()
    page.evaluate(TWO_FRAMES)


@pytest.mark.slow
def test_marked_parts_are_repainted_and_the_result_is_outpainted(page: Any, form: Form, served: Served) -> None:
    form.prompt(steps=2)
    old = form.make(served)
    page.locator("#ld-picture-repaint").click()
    canvas = page.locator("#ld-repaint-editor canvas").first
    canvas.wait_for()
    start = page.locator("#ld-repaint-start")
    start.click()
    assert "Nothing is painted" in form.message("repaint-message")
    assert axe_finds(page) == []
    canvas.scroll_into_view_if_needed()
    for place in ((-50, -50), (40, 40)):
        stroke(page, canvas.bounding_box(), *place)
    page.get_by_label("What these parts show").fill("a green star")
    start.click()
    page.locator("#ld-repaint").wait_for(state="hidden")
    form.wait_for("Done")
    new = served.pictures()[0]
    text = read_parameters(new).replace("\\", "")
    assert new != old and text.startswith("a green star") and '"each_part": true' in text
    before, after = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (old, new))
    assert 0 < (after != before).any(axis=2).mean() < 0.5, "only the marked parts changed"
    (mask,) = re.findall(r'"mask": "([0-9a-f]+\.png)"', text)
    assert len(separate_parts(Image.open(served.output / "inputs" / mask))) == 2

    page.locator("#ld-picture-init").click()
    page.locator("#ld-picture-details .ld-note").wait_for()
    form.unfold("Outpainting")
    form.fill("Right", 64)
    wider = form.make(served)
    pixels = np.asarray(Image.open(wider).convert("RGB"), dtype=int)
    assert pixels.shape == (128, 192, 3) and (pixels[:, :96] == after[:, :96]).all()
