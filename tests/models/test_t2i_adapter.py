"""T2I-Adapters and their effect inside the UNet, against diffusers' with the same random weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import T2IAdapter as DiffusersAdapter
from torch import Tensor

from modules.controlnet.load_adapter import build_adapter
from modules.loader.layouts.diffusers import unet_to_ldm
from modules.models.configs import UNetConfig
from modules.models.t2i_adapter import T2IAdapter
from modules.models.unet import UNet
from tests import tiny
from tests.models.oracles import diffusers_unet, relative_error

SD1 = tiny.SD1_UNET
XL = dataclasses.replace(SD1, channels=(64, 64, 128), depths=(0, 1, 1))  # SDXL's levels
KINDS: dict[str, tuple[UNetConfig, dict[str, Any]]] = {
    "full": (SD1, {"channels": (64, 64, 128, 128)}),
    "grey": (SD1, {"channels": (64, 64, 128, 128), "in_channels": 1}),
    "light": (SD1, {"channels": (64, 64, 128), "adapter_type": "light_adapter", "num_res_blocks": 3}),
    "xl": (XL, {"channels": (64, 64, 128, 128), "adapter_type": "full_adapter_xl", "downscale_factor": 16}),
}


def oracle_of(kind: str) -> Any:
    return tiny.randomise(DiffusersAdapter(**{"num_res_blocks": 2, **KINDS[kind][1]}))


def network_of(oracle: Any, kind: str) -> T2IAdapter:
    return build_adapter(oracle.state_dict(), KINDS[kind][0], torch.device("cpu"), torch.float32)


def hint(width: int, height: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_equals_diffusers(kind: str) -> None:
    oracle = oracle_of(kind)
    picture = hint(128, 192)
    with torch.inference_mode():
        ours = network_of(oracle, kind)(picture)
        theirs = oracle(picture.mean(1, keepdim=True) if kind == "grey" else picture)
    assert len(ours) == len(theirs) == 4
    assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


@pytest.mark.parametrize("kind", ["full", "light", "xl"])
def test_unet_with_features_equals_diffusers(kind: str) -> None:
    config, oracle, adapter = KINDS[kind][0], tiny.randomise(diffusers_unet(KINDS[kind][0])), oracle_of(kind)
    unet = UNet(config).eval()
    unet.load_state_dict(unet_to_ldm(oracle.state_dict()))
    x, context = torch.randn(1, 4, 16, 24), torch.randn(1, 7, config.context_dim)
    times = torch.tensor([500.0])
    with torch.inference_mode():
        features = network_of(adapter, kind)(hint(192, 128))
        ours = unet(x, times, context, features)
        theirs = oracle(x, times, context, down_intrablock_additional_residuals=[f.clone() for f in features]).sample
        plain = unet(x, times, context)
    assert relative_error(ours, theirs) < 1e-4
    assert relative_error(ours, plain) > 0.01


def test_features_and_residuals_together() -> None:
    oracle, adapter = tiny.randomise(diffusers_unet(SD1)), oracle_of("full")
    unet = UNet(SD1).eval()
    unet.load_state_dict(unet_to_ldm(oracle.state_dict()))
    x, context, times = torch.randn(1, 4, 8, 8), torch.randn(1, 7, SD1.context_dim), torch.tensor([40.0])
    picture = hint(64, 64)
    with torch.inference_mode():
        features = network_of(adapter, "full")(picture)
        residuals = tiny.controlnet()(x, picture, times, context)
        ours = unet(x, times, context, (*residuals, *features))
        theirs = oracle(
            x,
            times,
            context,
            down_block_additional_residuals=residuals[:-1],
            mid_block_additional_residual=residuals[-1],
            down_intrablock_additional_residuals=[feature.clone() for feature in features],
        ).sample
    assert relative_error(ours, theirs) < 1e-4


@pytest.mark.parametrize("kind", ["full", "xl"])
@pytest.mark.parametrize("size", [(72, 104), (200, 56)])
def test_odd_sizes_fit_the_unet(kind: str, size: tuple[int, int]) -> None:
    """Sizes are multiples of 8 pixels; the levels below round up as the UNet does."""
    config = KINDS[kind][0]
    unet, adapter = tiny.unet(config), network_of(oracle_of(kind), kind)
    x = torch.randn(1, 4, size[1] // 8, size[0] // 8)
    with torch.inference_mode():
        result = unet(x, torch.tensor([40.0]), torch.randn(1, 7, config.context_dim), adapter(hint(*size)))
    assert result.shape == x.shape and result.isfinite().all()
