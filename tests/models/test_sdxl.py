"""SDXL's networks and those of its kin against diffusers and transformers, small and in full size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from modules.loader.layouts.diffusers import controlnet_to_ldm, text_to_openclip, unet_to_ldm, vae_to_ldm
from modules.models.clip import ClipTextModel, OpenClipTextModel
from modules.models.configs import (
    SDXL_CLIP_G,
    SDXL_CLIP_L,
    SDXL_REFINER_UNET,
    SDXL_UNET,
    SDXL_VAE,
    SSD_1B_UNET,
    VEGA_UNET,
    UNetConfig,
)
from modules.models.controlnet import ControlNet
from modules.models.unet import UNet
from modules.models.union_controlnet import UnionConfig, UnionControlNet
from modules.models.vae import AutoencoderKL
from tests import tiny
from tests.models.oracles import (
    diffusers_controlnet,
    diffusers_unet,
    diffusers_vae,
    random_ids,
    relative_error,
    transformers_text,
)
from tests.models.pooled_weights import filled, pooled

POOLED = 32  # the width of the tiny models' pooled text
TINY = {
    "base": tiny.SDXL_UNET,
    "inpaint": replace(tiny.SDXL_UNET, in_channels=9),
    "SSD-1B": replace(tiny.SDXL_UNET, up_depths=((0, 0, 0), (1, 2, 1), (2, 1, 3)), middle_depth=None),
    "Vega": replace(tiny.SDXL_UNET, middle_depth=None),
    "refiner": replace(
        tiny.SDXL_UNET,
        channels=(32, 64, 64, 64),
        depths=(0, 2, 2, 0),
        middle_depth=2,
        context_dim=64,
        vector_dim=POOLED + 5 * 8,
    ),
}


def unet_error(config: UNetConfig, oracle: UNet2DConditionModel, size: tuple[int, int], pooled_width: int) -> float:
    """Evaluates both networks once, at two timesteps and with the same text and picture sizes."""
    ours = filled(lambda: UNet(config), unet_to_ldm(oracle.state_dict()))
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, config.in_channels, *size, generator=generator)
    context = torch.randn(2, 9, config.context_dim, generator=generator)
    text = torch.randn(2, pooled_width, generator=generator)
    assert config.vector_dim is not None
    sizes = torch.tensor([[832.0, 1216, 0, 8, 1024, 768], [64, 64, 16, 0, 6, 64]])
    sizes = sizes[:, : (config.vector_dim - pooled_width) // oracle.config.addition_time_embed_dim]
    time = torch.tensor([981.0, 3.0])
    added = {"text_embeds": text, "time_ids": sizes}
    with torch.inference_mode():
        vector = torch.cat([text, oracle.add_time_proj(sizes.flatten()).reshape(2, -1)], dim=1)
        return relative_error(
            ours(x, time, context, vector=vector), oracle(x, time, context, added_cond_kwargs=added).sample
        )


@pytest.mark.parametrize("kind", TINY)
def test_unet_equals_diffusers(kind: str) -> None:
    config = TINY[kind]
    oracle = tiny.randomise(diffusers_unet(config, pooled=POOLED))
    assert unet_error(config, oracle, (12, 8), POOLED) < 1e-5  # type: ignore[arg-type]


FULL = [
    pytest.param(SDXL_UNET, id="base"),
    pytest.param(SSD_1B_UNET, id="SSD-1B", marks=pytest.mark.slow),
    pytest.param(VEGA_UNET, id="Vega", marks=pytest.mark.slow),
    pytest.param(SDXL_REFINER_UNET, id="refiner", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("config", FULL)
def test_full_unet_equals_diffusers(config: UNetConfig) -> None:
    assert unet_error(config, pooled(lambda: diffusers_unet(config)), (8, 16), 1280) < 1e-4


def empty_controlnet(kinds: int) -> ControlNet:
    return UnionControlNet(SDXL_UNET, UnionConfig(kinds=kinds)) if kinds else ControlNet(SDXL_UNET)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [0, 8], ids=["ordinary", "union"])
def test_full_controlnet_equals_diffusers(kinds: int) -> None:
    """Both rows are one picture, because diffusers' union attends across the rows."""
    oracle = pooled(lambda: diffusers_controlnet(SDXL_UNET, kinds=kinds))
    ours = filled(lambda: empty_controlnet(kinds), controlnet_to_ldm(oracle.state_dict()))
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 4, 8, 16, generator=generator)
    hint = torch.rand(1, 3, 64, 128, generator=generator).expand(2, -1, -1, -1)
    context, text = torch.randn(2, 9, 2048, generator=generator), torch.randn(2, 1280, generator=generator)
    time, sizes = torch.tensor([981.0, 3.0]), torch.tensor([[832.0, 1216, 0, 8, 1024, 768], [64, 64, 16, 0, 6, 64]])
    told: dict[str, Any] = {"controlnet_cond": hint}
    if isinstance(ours, UnionControlNet):
        ours = ours.of_kind(5)
        told = {"controlnet_cond": [hint], "control_type": torch.eye(kinds)[[5, 5]], "control_type_idx": [5]}
    added = {"text_embeds": text, "time_ids": sizes}
    with torch.inference_mode():
        down, middle = oracle(x, time, context, added_cond_kwargs=added, return_dict=False, **told)
        vector = torch.cat([text, oracle.add_time_proj(sizes.flatten()).reshape(2, -1)], dim=1)
        residuals = ours(x, hint, time, context, vector)
    assert max(relative_error(a, b) for a, b in zip(residuals, [*down, middle], strict=True)) < 1e-4


@pytest.mark.slow
def test_full_clip_l_equals_transformers() -> None:
    oracle = pooled(lambda: transformers_text(SDXL_CLIP_L))
    state = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in oracle.state_dict().items()}
    ours = filled(lambda: ClipTextModel(SDXL_CLIP_L), state)
    ids = random_ids(2)
    with torch.inference_mode():
        expected = oracle(ids, output_hidden_states=True).hidden_states[-2]
        assert relative_error(ours(ours.embed_tokens(ids), skip=1), expected) < 1e-4


@pytest.mark.slow
def test_full_clip_g_equals_transformers() -> None:
    oracle = pooled(lambda: transformers_text(SDXL_CLIP_G))
    ours = filled(lambda: OpenClipTextModel(SDXL_CLIP_G), text_to_openclip(oracle.state_dict()))
    ids = random_ids(2)
    ids[0, 20:], ids[1, -1] = 49407, 49407
    with torch.inference_mode():
        expected = oracle(ids, output_hidden_states=True)
        hidden, vector = ours(ours.embed_tokens(ids), skip=1, ends=torch.tensor([20, 76]))
    assert relative_error(hidden, expected.hidden_states[-2]) < 1e-4
    assert relative_error(vector, expected.text_embeds) < 1e-4


@pytest.mark.slow
def test_full_vae_equals_diffusers() -> None:
    oracle = pooled(lambda: diffusers_vae(SDXL_VAE))
    ours = filled(lambda: AutoencoderKL(SDXL_VAE), vae_to_ldm(oracle.state_dict()))
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.inference_mode():
        latent: Tensor = oracle.encode(image).latent_dist.mean
        assert relative_error(ours.encode(image), latent) < 1e-4
        assert relative_error(ours.decode(latent), oracle.decode(latent).sample) < 1e-4
