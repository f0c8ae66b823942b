"""Facts from headers and configurations, with types and sizes checked, and consecutively numbered layers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from modules.core.errors import ModelFileError
from modules.loader.detection.facts import factor_of, header_facts, number_of
from modules.loader.files.numbered import count_numbered
from modules.loader.layouts.diffusers import open_folder
from tests import tiny
from tests.loader.detection.detecting import detect

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tiny.checkpoint_tensors().items()}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8", [8], {}, 10**400, 2**40])
def test_numbers_that_are_none(value: object) -> None:
    with pytest.raises(ModelFileError, match="unet_heads"):
        number_of({"unet_heads": value}, "unet_heads", 8)


def test_numbers_that_are_some() -> None:
    assert number_of({}, "a", 8) == number_of({"a": None}, "a", 8) == 8
    assert number_of({"a": 3}, "a", 8) == 3
    assert factor_of({"a": 1}, "a", 0.5) == 1.0 and factor_of({}, "a", 0.5) == 0.5


@pytest.mark.parametrize("value", [0, -0.1, True, "x", []])
def test_factors_that_are_none(value: object) -> None:
    with pytest.raises(ModelFileError, match="scale_factor"):
        factor_of({"scale_factor": value}, "scale_factor", 0.18)


@pytest.mark.parametrize("text", ["[]", "1", "{", "[" * 9000, '{"a": NaN}'])
def test_header_texts_that_are_none(text: str) -> None:
    with pytest.raises(ModelFileError, match="lightdiffusion"):
        header_facts({"lightdiffusion": text})


def test_layers_are_counted_and_a_gap_is_reported_at_once() -> None:
    assert count_numbered(["x.0.a", "x.1.a", "x.1.b", "y.7.a"], r"x\.(\d+)\.") == 2
    for number in ("7", "999999999", "9" * 5000):
        with pytest.raises(ModelFileError, match="number 1 is missing"):
            count_numbered(["x.0.a", f"x.{number}.a"], r"x\.(\d+)\.")


@pytest.mark.parametrize(
    "name",
    [
        "cond_stage_model.transformer.text_model.encoder.layers.999999999.mlp.fc1.weight",
        "first_stage_model.encoder.down.0.block.999999999.conv1.weight",
    ],
)
def test_a_network_of_a_billion_layers_is_refused_at_once(shapes: Shapes, name: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ModelFileError, match="have a gap in their numbers"):
        detect(shapes | {name: (1,)}, {})
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("facts", [{"unet_heads": 7}, {"unet_groups": 7}, {"vae_groups": 3}, {"clip_heads": 5}])
def test_heads_and_groups_divide_the_channels(shapes: Shapes, facts: dict[str, int]) -> None:
    with pytest.raises(ModelFileError, match="cannot be divided"):
        detect(shapes, {"lightdiffusion": json.dumps(facts)})


@pytest.mark.parametrize(
    "config",
    [
        {"attention_head_dim": [0], "block_out_channels": [320]},
        {"attention_head_dim": ["x"], "block_out_channels": [320]},
        {"attention_head_dim": [8], "block_out_channels": "x"},
        {"attention_head_dim": [8, 8]},
        [1],
    ],
)
def test_configurations_of_other_types(config: object, tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        torch.save({"w": torch.ones(2)}, tmp_path / part / "pytorch_model.bin")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="config.json"):
        open_folder(tmp_path)
