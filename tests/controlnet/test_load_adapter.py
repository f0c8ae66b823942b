"""T2I-Adapter files: TencentARC's names give the same network as diffusers', and other networks are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import T2IAdapter as DiffusersAdapter
from safetensors.torch import save_file
from torch import Tensor

from modules.controlnet.load import load_controlnet
from modules.core.errors import ModelFileError
from modules.models.t2i_adapter import T2IAdapter
from tests import tiny
from tests.controlnet.test_load import spec

FULL = {"channels": (64, 64, 128, 128), "num_res_blocks": 2}
LIGHT = {"channels": (64, 64, 128), "adapter_type": "light_adapter", "num_res_blocks": 4}


def weights_of(**shape: Any) -> dict[str, Tensor]:
    return tiny.randomise(DiffusersAdapter(**shape)).state_dict()


def tencent_full(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers the two residual blocks of all levels in one row; the first of a level has its `in_conv`."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = name.removeprefix("adapter.")
        if match := re.match(r"body\.(\d)\.(?:resnets\.(\d)\.)?(.+)", name):
            name = f"body.{2 * int(match[1]) + int(match[2] or 0)}.{match[3]}"
        renamed[name] = tensor
    return renamed


def tencent_light(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("adapter.").replace(".resnets.", ".body."): tensor for name, tensor in weights.items()}


def loaded(folder: Path, weights: dict[str, Tensor], **changes: Any) -> T2IAdapter:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "adapter.safetensors")
    model = spec(replace(tiny.SD1_UNET, **changes))
    network = load_controlnet(folder / "adapter.safetensors", model, "cpu", torch.float32)
    assert isinstance(network, T2IAdapter)
    return network


@pytest.mark.parametrize(("shape", "layout"), [(FULL, tencent_full), (LIGHT, tencent_light), (FULL, dict)])
def test_each_layout_gives_the_same_network(
    shape: dict[str, Any], layout: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    weights = weights_of(**shape)
    network = loaded(tmp_path, layout(weights))
    assert {f"adapter.{name}" for name in network.state_dict()} == set(weights)
    assert all(torch.equal(tensor, weights[f"adapter.{name}"]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights | {"adapter.stray": torch.zeros(2)}, "unexpected weight .stray"),
        (lambda weights: {k: v for k, v in weights.items() if k != "adapter.conv_in.weight"}, "conv_in.weight is miss"),
        (lambda weights: weights | {"adapter.conv_in.weight": torch.zeros(64, 50, 3, 3)}, "takes 50 channels"),
        (lambda weights: weights | {"adapter.conv_in.weight": torch.zeros(3)}, "conv_in.weight is broken"),
        (lambda weights: {k: v for k, v in weights.items() if ".body.1." not in k}, "number 1 is missing"),
    ],
)
def test_broken_adapters_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=words) as raised:
        loaded(tmp_path, change(weights_of(**FULL)))
    assert str(raised.value).startswith("adapter.safetensors cannot be used.")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"levels of \[64, 64, 128, 128\] channels, and this checkpoint's"):
        loaded(tmp_path, weights_of(**FULL), channels=(32, 64, 128, 128))
