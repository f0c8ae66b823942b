"""A1111's extras: pictures enlarged without a prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.api.conftest import Served


def test_lanczos_is_pillows(webui: Any, photo: Image.Image) -> None:
    larger = webui.extra_single_image(photo, upscaler_1="Lanczos", upscaling_resize=1.5).image
    assert np.array_equal(np.asarray(larger), np.asarray(photo.resize((96, 96), Image.Resampling.LANCZOS)))


def test_an_upscaler_is_the_file(webui: Any, served: Served, photo: Image.Image) -> None:
    assert "sharp" in [row["name"] for row in webui.get_upscalers()]
    larger = webui.extra_single_image(photo, upscaler_1="sharp", upscaling_resize=4).image
    session = served.desk.queue.session
    assert session is not None
    assert np.array_equal(np.asarray(larger), np.asarray(session.upscaler("sharp")(photo.convert("RGB"))))


def test_several_pictures_to_a_size(webui: Any, photo: Image.Image) -> None:
    asked = {"resize_mode": 1, "upscaling_resize_w": 80, "upscaling_resize_h": 40}
    wide = photo.resize((64, 16))
    cropped = webui.extra_batch_images([photo, wide], **asked)
    assert [image.size for image in cropped.images] == [(80, 40), (80, 40)]
    whole = webui.extra_batch_images([photo, wide], **asked, upscaling_crop=False)
    assert [image.size for image in whole.images] == [(80, 80), (160, 40)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"upscaling_resize": 1000}, "out of range"),
        ({"upscaling_resize": -1}, "out of range"),
        ({"resize_mode": 3}, "resize_mode 3 is unknown"),
        ({"upscaler_1": "zork"}, "No upscaler named"),
        ({"upscaler_1": "Latent"}, "enlarges latents"),
        ({"upscaler_2": "Lanczos"}, "upscaler_2"),
        ({"gfpgan_visibility": 0.5}, "gfpgan_visibility 0.5 is not supported"),
    ],
)
def test_refusals(webui: Any, served: Served, photo: Image.Image, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=words) as raised:
        webui.extra_single_image(photo, **asked)
    assert raised.value.args[0] == 400 and str(served.root) not in str(raised.value)
