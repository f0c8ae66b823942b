"""A1111's lists as its client reads them: names of models, never paths."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from PIL import Image

from modules.sampling.names import SCHEDULERS, resolve_sampler
from tests.api.conftest import SMALL, Served


def test_models_are_listed_by_name(webui: Any, served: Served) -> None:
    (checkpoint,) = webui.get_sd_models()
    assert (checkpoint["title"], checkpoint["model_name"]) == ("tiny.safetensors", "tiny")
    assert webui.util_get_model_names() == ["tiny.safetensors"]
    assert [lora["name"] for lora in webui.get_loras()] == ["clay", "ink"]
    assert webui.get_sd_vae() == [] and webui.get_embeddings()["loaded"] == {}
    assert webui.controlnet_model_list() == ["edges"] and "canny" in webui.controlnet_module_list()
    assert webui.controlnet_version() == 2
    everything = json.dumps([webui.get_sd_models(), webui.get_loras(), webui.get_upscalers(), webui.get_cmd_flags()])
    assert str(served.root) not in everything


def test_samplers_and_schedulers_can_be_sent_back(webui: Any) -> None:
    assert all(resolve_sampler(row["name"]).sampler == row["aliases"][0] for row in webui.get_samplers())
    assert [row["name"] for row in webui.get_schedulers()] == ["automatic", *SCHEDULERS]
    assert {"name": "Latent (bicubic antialiased)"} in webui.get_latent_upscale_modes()


def test_what_there_is_none_of_is_empty(webui: Any) -> None:
    assert webui.get_hypernetworks() == webui.get_face_restorers() == webui.get_realesrgan_models() == []
    assert "controlnet" in webui.get_scripts()["txt2img"]
    assert webui.get_memory()["ram"]["used"] > 0
    assert webui.refresh_checkpoints() is None


def test_png_info_gives_back_what_a_picture_holds(webui: Any, photo: Image.Image) -> None:
    made = webui.txt2img(**SMALL)
    info = webui.png_info(made.image)
    assert info.info == made.info["infotexts"][0]
    assert info.parameters["Prompt"] == "a cat" and info.parameters["Seed"] == "5"
    assert (info.parameters["Size-1"], info.parameters["Size-2"]) == ("64", "64")
    assert webui.png_info(photo).info == ""


def test_interrogate_says_why_not(webui: Any, photo: Image.Image) -> None:
    with pytest.raises(RuntimeError, match="no model for it") as raised:
        webui.interrogate(photo)
    assert raised.value.args[0] == 501


@pytest.mark.parametrize(("method", "path"), [("GET", "zork"), ("DELETE", "txt2img"), ("POST", "sd-models")])
def test_what_is_not_there_is_answered_in_the_same_form(served: Served, method: str, path: str) -> None:
    answer = httpx.request(method, f"{served.url}/sdapi/v1/{path}")
    assert answer.status_code == 404 and path in answer.json()["detail"]
