"""A1111's img2img by its own client, and what it is refused."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from modules.images.metadata import parse_parameters
from tests.api.conftest import SMALL, Served

URL = "/sdapi/v1/img2img"


def test_what_the_mask_leaves_stays(webui: Any, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size)
    mask.paste(255, (32, 0, 64, 64))
    asked = {**SMALL, "steps": 4, "denoising_strength": 0.9, "inpainting_fill": 1, "inpaint_full_res": False}
    result = webui.img2img(images=[photo], mask_image=mask, mask_blur=0, **asked)
    before, after = (np.asarray(image.convert("RGB"), dtype=int) for image in (photo, result.image))
    assert np.array_equal(after[:, :32], before[:, :32]) and np.abs(after[:, 32:] - before[:, 32:]).mean() > 1
    assert result.info["denoising_strength"] == 0.9
    assert "init_images" not in result.parameters and "mask" not in result.parameters


def test_only_the_masked_part_and_the_other_way_round(webui: Any, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size, 255)
    mask.paste(0, (16, 16, 32, 32))
    result = webui.img2img(
        images=[photo], mask_image=mask, inpainting_mask_invert=1, inpaint_full_res_padding=4, mask_blur=0, **SMALL
    )
    before, after = (np.asarray(image.convert("RGB"), dtype=int) for image in (photo, result.image))
    changed = np.abs(after - before).sum(-1)
    assert changed[16:32, 16:32].mean() > 1
    changed[16:32, 16:32] = 0
    assert changed.max() == 0
    packed = parse_parameters(result.info["infotexts"][0])[2]["Init image"]
    assert '"only_masked": true' in packed and '"mask_invert": true' in packed and '"mask_padding": 4' in packed


def test_a_start_picture_without_a_mask(webui: Any, photo: Image.Image) -> None:
    result = webui.img2img(images=[photo], **SMALL, denoising_strength=0.5, resize_mode=1)
    fields = parse_parameters(result.info["infotexts"][0])[2]
    assert fields["Denoising strength"] == "0.5" and '"resize": "crop"' in fields["Init image"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "init_images holds 0 pictures"),
        ({"init_images": []}, "init_images holds 0 pictures"),
        ({"init_images": ["x", "y"]}, "init_images holds 2 pictures"),
        ({"init_images": [7]}, 'init_images: "7" is not a text'),
        ({"init_images": ["http://127.0.0.1/x.png"]}, "addresses and paths are not opened"),
        ({"init_images": ["/etc/passwd"]}, "not a picture"),
        ({"init_images": ["file:///etc/passwd"]}, "addresses and paths are not opened"),
        ({"init_images": ["data:image/png,abc"]}, "not a data URL with base64"),
        ({"init_images": ["aGVsbG8="]}, "not a picture file"),
    ],
)
def test_only_pictures_as_data_are_taken(served: Served, asked: dict[str, Any], words: str) -> None:
    answer = httpx.post(f"{served.url}{URL}", json={**SMALL, **asked}, timeout=60)
    assert answer.status_code == 400 and words in answer.json()["detail"]


@pytest.mark.parametrize("name", ["resize_mode", "inpainting_fill"])
def test_numbers_without_a_meaning_here(webui: Any, photo: Image.Image, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"{name} 9 is not supported here: choose one of 0"):
        webui.img2img(images=[photo], **SMALL, **{name: 9})


@pytest.mark.parametrize("upscaler", ["Lanczos", 1])
def test_the_script_sd_upscale_repaints_in_tiles(webui: Any, photo: Image.Image, upscaler: str | int) -> None:
    script = {"script_name": "SD upscale", "script_args": ["", 16, upscaler, 1.5]}
    result = webui.img2img(images=[photo], **SMALL, denoising_strength=0.3, **script)
    assert result.image.size == (96, 96)
    assert "SD upscale overlap: 16, SD upscale upscaler: lanczos" in result.info["infotexts"][0]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"script_name": "X/Y/Z plot"}, "script_name"),
        ({"script_name": "SD upscale", "script_args": [64]}, "script_args of SD upscale holds 1 values"),
        ({"script_name": "SD upscale", "script_args": ["", 16, "Latent", 2]}, "enlarges latents"),
        ({"script_name": "SD upscale", "script_args": ["", 16, [], 2]}, "is not a text"),
        ({"script_name": "SD upscale", "script_args": ["", 60, "Lanczos", 2]}, "cannot overlap by 60 pixels"),
    ],
)
def test_scripts_that_are_refused(webui: Any, photo: Image.Image, script: dict[str, Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        webui.img2img(images=[photo], **SMALL, **script)
