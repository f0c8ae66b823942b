"""A1111's ControlNet units, and the hints that the extension draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webuiapi
from PIL import Image

from api.a1111.controlnet import fitted, mode_of, preprocessor_of
from modules.controlnet.preprocessors import canny
from modules.core.errors import OptionsError
from modules.gallery.output import OutputFolder
from modules.images.metadata import parse_parameters
from modules.images.resize import resize_image
from tests.api.conftest import SMALL


def test_a_unit_changes_the_picture(webui: Any, photo: Image.Image) -> None:
    unit = webuiapi.ControlNetUnit(
        image=photo, module="canny", model="edges [d14c016b]", weight=0.5, guidance_end=0.75, control_mode=2
    )
    result, plain = webui.txt2img(**SMALL, controlnet_units=[unit]), webui.txt2img(**SMALL)
    assert result.image.tobytes() != plain.image.tobytes()
    choice = json.loads(parse_parameters(result.info["infotexts"][0])[2]["ControlNet 0"])
    assert (choice["name"], choice["strength"], choice["end"]) == ("edges", 0.5, 0.75)
    assert (choice["preprocessor"], choice["mode"]) == ("canny", "control")


def test_a_unit_of_img2img_takes_the_start_picture(webui: Any, photo: Image.Image) -> None:
    unit = webuiapi.ControlNetUnit(model="edges")
    result = webui.img2img(images=[photo], **SMALL, controlnet_units=[unit])
    assert "ControlNet 0" in result.info["infotexts"][0]


def test_what_a_unit_is_refused(webui: Any, photo: Image.Image) -> None:
    for unit, words in (
        (webuiapi.ControlNetUnit(image=photo), "names no model"),
        (webuiapi.ControlNetUnit(image=photo, model="zork"), "No ControlNet named"),
        (webuiapi.ControlNetUnit(model="edges"), "has no image"),
        (webuiapi.ControlNetUnit(image=photo, model="edges", module="openpose"), "ControlNet preprocessor .*openpose"),
        (webuiapi.ControlNetUnit(image=photo, model="edges", mask=photo), "mask"),
        (webuiapi.ControlNetUnit(image=photo, model="edges", guidance_start=0.9, guidance_end=0.1), "swap"),
        (webuiapi.ControlNetUnit(image=photo, model="edges", control_mode=7), "control_mode"),
    ):
        with pytest.raises(RuntimeError, match=words):
            webui.txt2img(**SMALL, controlnet_units=[unit])


def test_a_hint_is_what_the_preprocessor_draws(webui: Any, photo: Image.Image) -> None:
    (hint,) = webui.controlnet_detect([photo], module="canny", processor_res=64).images
    assert np.array_equal(np.asarray(hint), np.asarray(canny(photo.convert("RGB"))))


def test_names_of_modes_and_preprocessors() -> None:
    assert [mode_of(value) for value in (None, 1, "ControlNet is more important")] == ["balanced", "prompt", "control"]
    with pytest.raises(OptionsError, match="control_mode"):
        mode_of(True)
    names = ("None", "canny", "softedge_hed", "invert (from white bg & black line)", "tile_resample")
    assert [preprocessor_of(name) for name in names] == ["none", "canny", "softedge", "invert", "tile"]


@pytest.mark.parametrize("resize", ["stretch", "fill"])
def test_a_picture_of_another_shape_is_fitted(tmp_path: Path, resize: str) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 64, 3), dtype=np.uint8))
    picture.save(tmp_path / "wide.png")
    with Image.open(fitted(tmp_path / "wide.png", (512, 512), resize, OutputFolder(tmp_path))) as found:
        assert np.array_equal(np.asarray(found), np.asarray(resize_image(picture, 64, 64, resize)))
