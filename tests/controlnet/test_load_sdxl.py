"""SDXL's ControlNets in every layout, its control-LoRAs and union files, against diffusers' networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.controlnet.load import load_controlnet
from modules.core.errors import ModelFileError
from modules.models.configs import UNetConfig
from modules.models.controlnet import ControlNet
from modules.models.layers import timestep_embedding
from modules.models.union_controlnet import UnionControlNet
from tests import tiny
from tests.controlnet.test_load import cldm, spec
from tests.models.oracles import diffusers_controlnet, relative_error

POOLED, SIZE_WIDTH = 32, 8
UNET = UNetConfig(
    channels=(64, 64, 128),
    depths=(0, 1, 2),
    middle_depth=2,
    context_dim=96,
    vector_dim=POOLED + 6 * SIZE_WIDTH,
    heads=None,
    head_dim=32,
    groups=16,
    linear_projection=True,
)
MODEL = spec(UNET, "SDXL")
KIND_TIME, HINT = "control_add_embedding.linear_1.weight", "controlnet_cond_embedding.conv_in.weight"


def oracle_of(config: UNetConfig = UNET, *, kinds: int = 0) -> Any:
    return tiny.randomise(diffusers_controlnet(config, pooled=POOLED, kinds=kinds))


def load(folder: Path, weights: dict[str, Tensor], **options: Any) -> ControlNet:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "net.safetensors")
    network = load_controlnet(folder / "net.safetensors", MODEL, "cpu", torch.float32, **options)
    assert isinstance(network, ControlNet)
    return network


class Inputs:
    """The same random inputs for both; both rows are one picture, as in the two halves of guidance."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(8)
        self.x = torch.randn(1, 4, 8, 16, generator=generator).repeat(2, 1, 1, 1)
        self.hint = torch.rand(1, 3, 64, 128, generator=generator).repeat(2, 1, 1, 1)
        self.times = torch.tensor([601.0, 601.0])
        self.context = torch.randn(2, 7, UNET.context_dim, generator=generator)
        self.pooled = torch.randn(2, POOLED, generator=generator)
        self.sizes = torch.tensor([[64.0, 128, 0, 0, 64, 128]]).repeat(2, 1)

    def ours(self, network: ControlNet) -> tuple[Tensor, ...]:
        sizes = timestep_embedding(self.sizes.flatten(), SIZE_WIDTH).reshape(2, -1)
        vector = torch.cat([self.pooled, sizes], 1)
        with torch.inference_mode():
            return network(self.x, self.hint, self.times, self.context, vector)

    def theirs(self, model: Any, **more: Any) -> list[Tensor]:
        hint = [self.hint] if more else self.hint
        added = {"text_embeds": self.pooled, "time_ids": self.sizes}
        with torch.inference_mode():
            down, middle = model(
                self.x, self.times, self.context, hint, added_cond_kwargs=added, return_dict=False, **more
            )
        return [*down, middle]


def assert_same(ours: tuple[Tensor, ...], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) == 10
    assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


def test_diffusers_file_equals_diffusers(tmp_path: Path) -> None:
    oracle = oracle_of()
    assert_same(Inputs().ours(load(tmp_path, oracle.state_dict())), Inputs().theirs(oracle))


def test_cldm_file_is_the_same_network(tmp_path: Path) -> None:
    weights = tiny.controlnet(UNET).state_dict()
    network = load(tmp_path, cldm(weights))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_shallower_controlnet_than_the_unet_equals_diffusers(tmp_path: Path) -> None:
    """The small and mid SDXL ControlNets leave out transformer blocks; their residuals have the UNet's shapes."""
    oracle = oracle_of(replace(UNET, depths=(0, 1, 1)))
    network = load(tmp_path, oracle.state_dict())
    assert network.config.depths == (0, 1, 1)
    assert_same(Inputs().ours(network), Inputs().theirs(oracle))


def test_control_lora_equals_diffusers_with_the_expanded_weights(tmp_path: Path) -> None:
    """W + up @ down is computed in float64 on diffusers' own weights; only what the file holds differs."""
    oracle = oracle_of()
    full = load(tmp_path, oracle.state_dict()).state_dict()
    base = tiny.unet(UNET).state_dict()
    file = {"lora_controlnet": torch.tensor([])}
    for name, weight in full.items():
        if name not in base:
            file[name] = weight
        elif weight.ndim == 1:
            file[name] = weight
        else:
            change = (weight.double() - base[name].double()).flatten(1)
            u, s, v = torch.linalg.svd(change, full_matrices=False)
            file[name.replace(".weight", ".up")] = (u * s).float()
            file[name.replace(".weight", ".down")] = v.reshape(-1, *weight.shape[1:]).float()
    assert_same(Inputs().ours(load(tmp_path, file, base=base)), Inputs().theirs(oracle))


@pytest.fixture(scope="module")
def union() -> Any:
    return oracle_of(kinds=8)


@pytest.mark.parametrize("kind", [0, 3, 7])
def test_union_equals_diffusers(kind: int, union: Any, tmp_path: Path) -> None:
    network = load(tmp_path, union.state_dict())
    assert isinstance(network, UnionControlNet) and network.union.kinds == 8
    in_use = torch.nn.functional.one_hot(torch.tensor([kind, kind]), 8).float()
    theirs = Inputs().theirs(union, control_type=in_use, control_type_idx=[kind])
    assert_same(Inputs().ours(network.of_kind(kind)), theirs)


def test_union_kinds_differ_and_share_their_weights(union: Any, tmp_path: Path) -> None:
    network = load(tmp_path, union.state_dict())
    assert isinstance(network, UnionControlNet)
    first, second = network.of_kind(1), network.of_kind(2)
    assert relative_error(Inputs().ours(first)[0], Inputs().ours(second)[0]) > 0.01
    assert network.of_kind(1) is first and first.task_embedding is second.task_embedding


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: {k: v for k, v in weights.items() if "control_add" not in k}, "missing or broken"),
        (lambda weights: weights | {"task_embedding": torch.zeros(0, 4)}, "missing or broken"),
        (lambda weights: weights | {KIND_TIME: torch.zeros(1, 0)}, "takes 0 values"),
        (lambda weights: weights | {KIND_TIME: torch.zeros(1, len(weights["task_embedding"]) * 5)}, "do not fit"),
        (lambda weights: weights | {HINT: torch.zeros(16, 9, 3, 3)}, "pictures of 9 channels"),
        (lambda weights: {k: v for k, v in weights.items() if "spatial_ch" not in k}, "lacks spatial_ch_projs"),
        (lambda weights: weights | {"control_type_embedding": torch.zeros(2)}, "union ControlNet of another model"),
    ],
)
def test_broken_union_files_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, union: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=words):
        load(tmp_path, change(union.state_dict()))


def test_an_sd1_controlnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="this checkpoint is a small SDXL of context width 96"):
        load(tmp_path, tiny.controlnet().state_dict())
