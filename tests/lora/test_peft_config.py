"""Scales from PEFT's configuration: patterns, rank-stabilised scaling, damaged text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules.core.errors import ModelFileError
from modules.lora.peft_config import read_scales
from tests.lora.builders import lora, save


def keys(*modules: str) -> list[str]:
    return [f"{module}.lora_A.weight" for module in modules]


def test_patterns_and_components(tmp_path: Path) -> None:
    header = {
        "unet.r": 8,
        "unet.lora_alpha": 4,
        "unet.rank_pattern": {"mid.to_q": 2},
        "unet.alpha_pattern": {"to_k": 16},
        "text_encoder.r": 16,
        "text_encoder.lora_alpha": 8,
        "text_encoder.use_rslora": True,
    }
    path = save(tmp_path / "a.safetensors", lora("x", 4, 4), {"lora_adapter_metadata": json.dumps(header)})
    scales = read_scales(path, keys("unet.a.to_v", "unet.mid.to_q", "unet.a.to_k", "text_encoder.b"))
    assert scales == {"unet.a.to_v": 0.5, "unet.mid.to_q": 2.0, "unet.a.to_k": 2.0, "text_encoder.b": 2.0}


def test_no_configuration_means_no_scales(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert read_scales(save(tmp_path / "other.safetensors", lora("x", 4, 4)), keys("a")) == {}
    assert read_scales(save(tmp_path / "adapter_model.safetensors", lora("x", 4, 4)), keys("a")) == {"a": 2.0}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_configuration(text: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", lora("x", 4, 4), {"lora_adapter_metadata": text})
    with pytest.raises(ModelFileError, match="LoRA configuration in a.safetensors"):
        read_scales(path, keys("a"))


@pytest.mark.parametrize(
    "config",
    [
        {"r": "x"},
        {"r": [4]},
        {"r": -4, "lora_alpha": 4, "use_rslora": True},
        {"r": 4, "lora_alpha": True},
        {"rank_pattern": ["a"]},
        {"rank_pattern": {"a": "x"}},
        {"alpha_pattern": {"a": {"b": 1}}},
        {"rank_pattern": {"(": 4}},
        {"rank_pattern": {"(a+)+$": 4}},
    ],
)
def test_values_of_other_types_and_patterns_that_hang(config: dict[str, object], tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", lora("x", 4, 4), {"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(ModelFileError, match="LoRA configuration in a.safetensors cannot be used"):
        read_scales(path, keys("a" * 40 + "!"))


@pytest.mark.parametrize("pattern", ["to_q", "mid.to_q", r"^unet\.mid\.to_q", "m.d.to_(q|k)", ".*mid.*", "to_[qk]"])
def test_patterns_that_name_a_layer(pattern: str, tmp_path: Path) -> None:
    config = {"r": 8, "lora_alpha": 8, "rank_pattern": {pattern: 2}}
    path = save(tmp_path / "a.safetensors", lora("x", 4, 4), {"lora_adapter_metadata": json.dumps(config)})
    assert read_scales(path, keys("unet.mid.to_q", "other")) == {"unet.mid.to_q": 4.0, "other": 1.0}
