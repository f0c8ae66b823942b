"""UNet and ControlNet against diffusers' with the same random weights; weight names against diffusers' converters."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint

from modules.loader.layouts.diffusers import controlnet_to_ldm, unet_to_ldm
from modules.loader.load_weights import empty_weights, fill_network
from modules.models.configs import SD15_UNET, SD21_UNET, UNetConfig
from modules.models.controlnet import ControlNet
from modules.models.unet import UNet
from tests import tiny
from tests.models.oracles import diffusers_controlnet, diffusers_unet, relative_error

CPU = torch.device("cpu")
TINY = {
    "sd1": tiny.SD1_UNET,
    "sd2": tiny.SD2_UNET,
    "inpaint": dataclasses.replace(tiny.SD1_UNET, in_channels=9),
    "one block a level": dataclasses.replace(tiny.SD1_UNET, res_blocks=1),
}


def inputs(config: UNetConfig, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, config.in_channels, *size, generator=generator)
    context = torch.randn(2, 77, config.context_dim, generator=generator)
    return x, torch.tensor([981.0, 3.0]), context


def unet_error(config: UNetConfig, size: tuple[int, int]) -> float:
    oracle = tiny.randomise(diffusers_unet(config))
    with empty_weights():
        ours = UNet(config)
    fill_network(ours, unet_to_ldm(oracle.state_dict()), CPU, torch.float32, lambda: None, "UNet")
    x, t, context = inputs(config, size)
    with torch.inference_mode():
        return relative_error(ours(x, t, context), oracle(x, t, context).sample)


def controlnet_error(config: UNetConfig, size: tuple[int, int]) -> float:
    oracle = tiny.randomise(diffusers_controlnet(config))
    with empty_weights():
        ours = ControlNet(config)
    fill_network(ours, controlnet_to_ldm(oracle.state_dict()), CPU, torch.float32, lambda: None, "ControlNet")
    x, t, context = inputs(config, size)
    hint = torch.rand(2, 3, size[0] * 8, size[1] * 8, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        residuals = ours(x, hint, t, context)
        expected = oracle(x, t, context, hint, return_dict=False)
    assert len(residuals) == len(expected[0]) + 1
    return max(relative_error(a, b) for a, b in zip(residuals, [*expected[0], expected[1]], strict=True))


@pytest.mark.parametrize("variant", TINY)
@pytest.mark.parametrize("size", [(16, 16), (24, 8)])
def test_unet_equals_diffusers(variant: str, size: tuple[int, int]) -> None:
    assert unet_error(TINY[variant], size) < 1e-4


@pytest.mark.parametrize("variant", ["sd1", "sd2"])
def test_controlnet_equals_diffusers(variant: str) -> None:
    assert controlnet_error(TINY[variant], (16, 8)) < 1e-4


def test_unet_with_control_residuals_equals_diffusers() -> None:
    config = tiny.SD1_UNET
    oracle = tiny.randomise(diffusers_unet(config))
    control = tiny.randomise(diffusers_controlnet(config))
    with empty_weights():
        ours = UNet(config)
    fill_network(ours, unet_to_ldm(oracle.state_dict()), CPU, torch.float32, lambda: None, "UNet")
    x, t, context = inputs(config, (16, 16))
    with torch.inference_mode():
        down, middle = control(x, t, context, torch.rand(2, 3, 128, 128), return_dict=False)
        expected = oracle(
            x, t, context, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        actual = ours(x, t, context, control=(*down, middle))
        plain = ours(x, t, context)
    assert relative_error(actual, expected) < 1e-4
    assert relative_error(plain, expected) > 1e-2  # the residuals have an effect


@pytest.mark.slow
@pytest.mark.parametrize("config", [SD15_UNET, SD21_UNET], ids=["sd1.5", "sd2.1"])
def test_full_unet_equals_diffusers(config: UNetConfig) -> None:
    assert unet_error(config, (32, 32)) < 1e-4


@pytest.mark.slow
def test_full_controlnet_equals_diffusers() -> None:
    assert controlnet_error(SD15_UNET, (32, 32)) < 1e-4


@pytest.mark.parametrize("config", [tiny.SD1_UNET, tiny.SD2_UNET], ids=["sd1", "sd2"])
def test_diffusers_reads_our_unet_names_as_we_do(config: UNetConfig) -> None:
    ours = tiny.unet(config).state_dict()
    oracle = diffusers_unet(config)
    converted = convert_ldm_unet_checkpoint({f"model.diffusion_model.{k}": v for k, v in ours.items()}, oracle.config)
    oracle.load_state_dict(converted, strict=True)
    back = unet_to_ldm(converted)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_diffusers_reads_our_controlnet_names_as_we_do() -> None:
    ours = tiny.controlnet().state_dict()
    oracle = diffusers_controlnet(tiny.SD1_UNET)
    converted = convert_controlnet_checkpoint({f"control_model.{k}": v for k, v in ours.items()}, oracle.config)
    oracle.load_state_dict(converted, strict=True)
    back = controlnet_to_ldm(converted)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
