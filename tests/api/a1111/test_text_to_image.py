"""A1111's txt2img by its own client: what it asks for, what it gets, and what it is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import webuiapi
from PIL import Image

from api.a1111.text_to_image import read_common
from api.fields import Fields
from modules.generation.metadata.write import from_parameters
from tests.api.conftest import SMALL, Served


def test_a_batch_has_a_picture_a_seed_and_a_text_each(webui: Any, served: Served) -> None:
    result = webui.txt2img(**SMALL, negative_prompt="a dog", batch_size=2, n_iter=2, cfg_scale=5)
    assert [image.size for image in result.images] == [(64, 64)] * 4
    assert result.info["all_seeds"] == [5, 6, 7, 8] and result.info["seed"] == 5
    assert result.info["infotexts"] == [image.info["parameters"] for image in result.images]
    options = from_parameters(result.info["infotexts"][2])
    assert (options.prompt, options.negative_prompt, options.cfg, options.steps) == ("a cat", "a dog", 5, 2)
    assert (options.sampler, options.scheduler, options.emphasis) == ("euler_ancestral", "normal", "a1111")
    assert result.parameters["width"] == 64
    alone = webui.txt2img(**{**SMALL, "seed": 7}, negative_prompt="a dog", cfg_scale=5).image
    assert np.abs(np.asarray(alone, dtype=int) - np.asarray(result.images[2], dtype=int)).max() <= 1


def test_an_empty_request_has_a1111s_defaults(served: Served) -> None:
    answer = httpx.post(f"{served.url}/sdapi/v1/txt2img", json={"width": 64, "height": 64, "steps": 1}, timeout=60)
    (picture,) = answer.json()["images"]
    text = Image.open(io.BytesIO(base64.b64decode(picture))).info["parameters"]
    assert "Sampler: Euler," in text and "CFG scale: 7," in text
    assert json.loads(answer.json()["info"])["all_seeds"][0] >= 0


def test_hires_fix_and_a_lora_in_the_prompt(webui: Any) -> None:
    plain = webui.txt2img(**SMALL)
    asked = {**SMALL, "prompt": "a cat <lora:ink:0.7>"}
    assert webui.txt2img(**asked).image.tobytes() != plain.image.tobytes()
    larger = webui.txt2img(
        **asked, enable_hr=True, hr_scale=1.5, hr_upscaler=webuiapi.HiResUpscaler.Latent, hr_second_pass_steps=3
    )
    assert larger.image.size == (96, 96)
    hires = from_parameters(larger.info["infotexts"][0]).hires
    assert hires is not None and (hires.method, hires.steps, hires.denoise) == ("bilinear", 3, 0.7)


def test_pictures_are_kept_only_on_request(webui: Any, served: Served) -> None:
    def kept() -> int:
        return len(list(served.root.glob("output/*/*.png")))

    before = kept()
    webui.txt2img(**SMALL)
    assert kept() == before
    answer = webui.txt2img(**SMALL, save_images=True, send_images=False)
    assert kept() == before + 1 and answer.images == [] and len(answer.info["infotexts"]) == 1


def test_styles_are_words_around_the_prompt(webui: Any) -> None:
    names = [style["name"] for style in webui.get_prompt_styles()]
    assert names == ["ink", "fine"]
    info = webui.txt2img(**SMALL, styles=names).info
    assert info["prompt"] == "an ink drawing of a cat, very fine" and info["negative_prompt"] == "colour"


@pytest.mark.parametrize(
    ("given", "refiner", "start"),
    [
        ({"refiner_checkpoint": "tiny.safetensors [6ce0161689]", "refiner_switch_at": 0.6}, "tiny.safetensors", 0.6),
        ({"refiner_checkpoint": "tiny"}, "tiny", 0.8),
        ({"refiner_checkpoint": "None", "refiner_switch_at": 0.6}, None, None),
        ({"refiner_switch_at": 1}, None, None),
    ],
)
def test_the_refiner_and_its_start(served: Served, given: dict[str, Any], refiner: Any, start: Any) -> None:
    options = read_common(served.desk, Fields(given))
    assert (options["refiner"], options["refiner_start"]) == (refiner, start)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"steps": 10**6}, "steps 1000000 is out of range"),
        ({"width": 100}, "width 100 cannot be used"),
        ({"seed": "x"}, 'seed: "x" is not a whole number'),
        ({"prompt": 7}, 'prompt: "7" is not a text'),
        ({"sampler_name": "zork"}, 'no sampler called "zork"'),
        ({"scheduler": "zork"}, 'no scheduler called "zork"'),
        ({"prompt": "x <lora:../../etc/passwd:1>"}, "No LoRA named"),
        ({"prompt": "x <lora:missing:1>"}, "No LoRA named"),
        ({"subseed_strength": 0.5}, "subseed_strength 0.5 is not supported"),
        ({"tiling": True}, "tiling true is not supported"),
        ({"restore_faces": True}, "restore_faces true"),
        ({"script_name": "X/Y/Z plot"}, "script_name"),
        ({"refiner_checkpoint": "zork"}, "No checkpoint named"),
        ({"refiner_checkpoint": "tiny", "refiner_switch_at": 2}, "refiner start 2"),
        ({"refiner_checkpoint": "tiny"}, "The refiner goes on from SDXL's pictures"),
        ({"styles": ["zork"]}, 'no style "zork"'),
        ({"override_settings": {"sd_model_checkpoint": "/etc/passwd"}}, "No checkpoint named"),
        ({"override_settings": {"samples_format": "jpg"}}, "samples_format"),
        ({"alwayson_scripts": {"roop": {"args": [1]}}}, 'script "roop" is not supported'),
        ({"enable_hr": True, "hr_upscaler": "zork"}, "zork"),
        ({"enable_hr": True, "hr_prompt": "a dog"}, "hr_prompt"),
    ],
)
def test_refusals_name_the_field(served: Served, asked: dict[str, Any], words: str) -> None:
    answer = httpx.post(f"{served.url}/sdapi/v1/txt2img", json={**SMALL, **asked}, timeout=60)
    assert answer.status_code == 400 and words in answer.json()["detail"]
    assert str(served.root) not in answer.text


def test_the_client_raises_our_sentence(webui: Any) -> None:
    with pytest.raises(RuntimeError, match="out of range"):
        webui.txt2img(**{**SMALL, "steps": 0})
