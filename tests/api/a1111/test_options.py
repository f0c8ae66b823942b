"""A1111's options: the API's own defaults, and what one request overrides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from api.desk import Defaults
from tests.api.conftest import SMALL, Served


@pytest.fixture(autouse=True)
def with_another(served: Served) -> Iterator[None]:
    checkpoints = served.root / "models" / "checkpoints"
    shutil.copy(checkpoints / "tiny.safetensors", checkpoints / "twin.safetensors")
    yield
    served.desk.defaults = Defaults()
    (checkpoints / "twin.safetensors").unlink()


def test_the_defaults_can_be_switched(webui: Any) -> None:
    assert webui.get_options()["sd_model_checkpoint"] == "tiny.safetensors"
    webui.util_set_model("twin.safetensors")
    webui.set_options({"CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic", "live_previews_enable": True})
    options = webui.get_options()
    assert (options["sd_model_checkpoint"], options["CLIP_stop_at_last_layers"]) == ("twin.safetensors", 2)
    text = webui.txt2img(**SMALL).info["infotexts"][0]
    assert "Model: twin" in text and "Clip skip: 2" in text


def test_one_request_overrides_them(webui: Any) -> None:
    asked = {"sd_model_checkpoint": "twin.safetensors [86ef109d2f]", "CLIP_stop_at_last_layers": 2}
    assert "Model: twin" in webui.txt2img(**SMALL, override_settings=asked).info["infotexts"][0]
    assert webui.get_options()["sd_model_checkpoint"] == "tiny.safetensors"
    assert "Clip skip: 1" in webui.txt2img(**SMALL).info["infotexts"][0]


def test_what_cannot_be_set(webui: Any) -> None:
    for wrong in (
        {"sd_model_checkpoint": "zork"},
        {"sd_vae": "zork"},
        {"CLIP_stop_at_last_layers": "x"},
        {"CLIP_stop_at_last_layers": 99},
    ):
        answer = webui.session.post(f"{webui.baseurl}/options", json=wrong)
        assert answer.status_code == 400 and answer.json()["detail"]
    assert webui.get_options()["sd_model_checkpoint"] == "tiny.safetensors"
