"""ESRGAN-type upscalers: three ways to name the same weights, against plain convolutions in float64."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.loader.upscaler import load_rrdbnet
from tests.upscalers import esrgan_tensors

CPU = torch.device("cpu")
FEATURES, GROWTH, BLOCKS = 12, 6, 2


def reference(weights: dict[str, Tensor], x: Tensor, doublings: int, shuffle: int) -> Tensor:
    """The paper's network, written out with ESRGAN's own key names."""

    def conv(name: str, value: Tensor) -> Tensor:
        return F.conv2d(value, weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double(), padding=1)

    def active(value: Tensor) -> Tensor:
        return torch.where(value > 0, value, 0.2 * value)

    x = x.double()
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // shuffle, shuffle, w // shuffle, shuffle).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    x = conv("model.0", x)
    trunk = x
    for block in range(BLOCKS):
        before = trunk
        for dense in (1, 2, 3):
            parts = [trunk]
            for index in range(1, 5):
                joined = torch.cat(parts, dim=1)
                parts.append(active(conv(f"model.1.sub.{block}.RDB{dense}.conv{index}.0", joined)))
            trunk = trunk + 0.2 * conv(f"model.1.sub.{block}.RDB{dense}.conv5.0", torch.cat(parts, dim=1))
        trunk = before + 0.2 * trunk
    x = x + conv(f"model.1.sub.{BLOCKS}", trunk)
    place = 3
    for _ in range(doublings):
        x = active(conv(f"model.{place}", x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)))
        place += 3
    return conv(f"model.{place + 1}", active(conv(f"model.{place - 1}", x)))


def as_bsrgan(name: str) -> str:
    last = {"model.0": "conv_first", f"model.1.sub.{BLOCKS}": "trunk_conv"}
    last |= {"model.3": "upconv1", "model.6": "upconv2", "model.8": "HRconv", "model.10": "conv_last"}
    module, _, end = name.rpartition(".")
    if module in last:
        return f"{last[module]}.{end}"
    return re.sub(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0", r"RRDB_trunk.\1.RDB\2.conv\3", name)


def as_real_esrgan(name: str) -> str:
    name = as_bsrgan(name).replace("trunk_conv", "conv_body").replace("HRconv", "conv_hr").replace("upconv", "conv_up")
    return "params_ema." + name.replace("RRDB_trunk", "body").replace("RDB", "rdb")


@pytest.mark.parametrize(("doublings", "shuffle"), [(2, 1), (1, 1), (3, 1), (2, 2), (2, 4)])
def test_every_scale_against_the_reference(tmp_path: Path, doublings: int, shuffle: int) -> None:
    weights = esrgan_tensors(FEATURES, GROWTH, BLOCKS, doublings=doublings, shuffle=shuffle)
    torch.save(weights, tmp_path / "a.pth")
    network = load_rrdbnet(tmp_path / "a.pth", CPU)
    assert network is not None and network.config.scale == 2**doublings // shuffle
    x = torch.rand(1, 3, 20, 12)
    expected = reference(weights, x, doublings, shuffle)
    assert expected.shape[-1] == 12 * network.config.scale and expected.std() > 0.05
    torch.testing.assert_close(network(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rename", [as_bsrgan, as_real_esrgan])
def test_other_names_are_the_same_network(tmp_path: Path, rename) -> None:
    weights = esrgan_tensors(FEATURES, GROWTH, BLOCKS)
    renamed = {rename(name): tensor for name, tensor in weights.items()}
    assert len(renamed) == len(weights) and not set(renamed) & set(weights)
    torch.save(renamed, tmp_path / "a.pth")
    network = load_rrdbnet(tmp_path / "a.pth", CPU)
    x = torch.rand(1, 3, 9, 7)
    assert network is not None
    torch.testing.assert_close(network(x).double(), reference(weights, x, 2, 1), rtol=1e-5, atol=1e-5)


def test_averaged_weights_come_first(tmp_path: Path) -> None:
    averaged, last = esrgan_tensors(FEATURES, GROWTH, BLOCKS), esrgan_tensors(FEATURES, GROWTH, BLOCKS, seed=1)
    both = {"params": last, "params_ema": averaged}
    torch.save(
        {kind: {as_bsrgan(name): tensor for name, tensor in weights.items()} for kind, weights in both.items()},
        tmp_path / "a.pth",
    )
    network = load_rrdbnet(tmp_path / "a.pth", CPU)
    assert network is not None and torch.equal(network.conv_first.weight, averaged["model.0.weight"])


def test_another_kind_is_none_and_a_damaged_one_a_sentence(tmp_path: Path) -> None:
    torch.save({"body.0.weight": torch.randn(4, 3, 3, 3)}, tmp_path / "compact.pth")
    assert load_rrdbnet(tmp_path / "compact.pth", CPU) is None
    weights = esrgan_tensors(FEATURES, GROWTH, BLOCKS)
    del weights["model.1.sub.1.RDB2.conv3.0.bias"]
    torch.save(weights, tmp_path / "hole.pth")
    with pytest.raises(ModelFileError, match=r"hole.pth .* .body.1.rdb2.conv3.bias. is missing"):
        load_rrdbnet(tmp_path / "hole.pth", CPU)
