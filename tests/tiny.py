"""The real network classes at tiny size, with reproducible random weights, and whole checkpoints of such networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from modules.loader.checkpoint import LoadedModel
from modules.models.clip import TextEncoders, build_text_model
from modules.models.configs import TextConfig, UNetConfig, VAEConfig
from modules.models.controlnet import ControlNet
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL

SD1_UNET = UNetConfig(channels=(64, 64, 128, 128), context_dim=64, heads=2, groups=16)
# All levels, but one residual block each. For whole checkpoints: they are loaded and traced in half of the time.
SD1_SHORT_UNET = replace(SD1_UNET, res_blocks=1)
# Two levels of one residual block each. For tests of what surrounds a network: it is traced in a fifth of the time.
SMALL_UNET = UNetConfig(channels=(32, 64), depths=(1, 0), res_blocks=1, context_dim=64, heads=2, groups=8)
SD2_UNET = UNetConfig(
    channels=(64, 128, 128, 128),
    context_dim=1024,
    heads=None,
    head_dim=64,
    groups=16,
    linear_projection=True,
    upcast_attention=True,
)
SDXL_UNET = UNetConfig(
    channels=(32, 64, 64),
    depths=(0, 1, 2),
    middle_depth=2,
    context_dim=32 + 64,
    vector_dim=32 + 6 * 8,
    heads=None,
    head_dim=32,
    groups=8,
    linear_projection=True,
)
VAE = VAEConfig(channels=(16, 32, 32, 32), groups=4)
SD1_TEXT = TextConfig(width=64, layers=3, heads=1, mlp_width=128)
SD2_TEXT = TextConfig(
    name="clip_h",
    layout="openclip",
    width=1024,
    layers=2,
    heads=16,
    mlp_width=64,
    activation="gelu",
    skip=1,
    pad_token=0,
)

SDXL_TEXTS = (
    TextConfig(width=32, layers=3, heads=1, mlp_width=64, skip=1, final_norm=False),
    TextConfig(
        name="clip_g",
        layout="openclip",
        width=64,
        layers=3,
        heads=1,
        mlp_width=128,
        activation="gelu",
        skip=1,
        pad_token=0,
        final_norm=False,
        projection=32,
    ),
)

REFINER_UNET = replace(  # attention at the middle level only, and CLIP-G alone
    SDXL_UNET,
    depths=(0, 1, 0),
    middle_depth=1,
    context_dim=SDXL_TEXTS[1].width,
    vector_dim=(SDXL_TEXTS[1].projection or 0) + 5 * 8,
)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Sets random weights of realistic size in all layers, even zero-initialised ones, so that no path is dead."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / fan_in**0.5)
            else:
                parameter.copy_(0.1 * noise + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0))
    return module.eval().requires_grad_(False)


def unet(config: UNetConfig = SD1_UNET, seed: int = 0) -> UNet:
    return randomise(UNet(config), seed)  # type: ignore[return-value]


def controlnet(config: UNetConfig = SD1_UNET, seed: int = 1) -> ControlNet:
    return randomise(ControlNet(config), seed)  # type: ignore[return-value]


def vae(config: VAEConfig = VAE, seed: int = 2) -> AutoencoderKL:
    return randomise(AutoencoderKL(config), seed)  # type: ignore[return-value]


def text_model(config: TextConfig = SD1_TEXT, seed: int = 3) -> nn.Module:
    return randomise(build_text_model(config), seed)


def text_encoders(configs: Iterable[TextConfig] = (SD1_TEXT,), seed: int = 3) -> TextEncoders:
    return randomise(TextEncoders(configs), seed)  # type: ignore[return-value]


def only_text(model: LoadedModel) -> Any:
    """Returns the text encoder of a model that has one."""
    [encoder] = model.text.module.children()
    return encoder


def prefixed(prefix: str, module: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {prefix + name: tensor.to(dtype).contiguous() for name, tensor in module.state_dict().items()}


def checkpoint_tensors(
    *, sd2: bool = False, sdxl: bool = False, dtype: torch.dtype = torch.float16, seed: int = 0
) -> dict[str, Tensor]:
    """Returns all tensors of a tiny SD1.x-, SD2.x- or SDXL-layout checkpoint."""
    config = SDXL_UNET if sdxl else SD2_UNET if sd2 else SD1_SHORT_UNET
    if sdxl:
        prefixes = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
        texts = dict(zip(prefixes, SDXL_TEXTS, strict=True))
    else:
        texts = {"cond_stage_model.model.": SD2_TEXT} if sd2 else {"cond_stage_model.transformer.": SD1_TEXT}
    tensors = prefixed("model.diffusion_model.", unet(config, seed), dtype)
    tensors |= prefixed("first_stage_model.", vae(seed=seed + 1), dtype)
    for number, (prefix, text) in enumerate(texts.items()):
        tensors |= prefixed(prefix, text_model(text, seed + 2 + number), dtype)
    return tensors


def refiner_tensors(seed: int = 20) -> dict[str, Tensor]:
    """Returns all tensors of a tiny SDXL refiner, in float32."""
    tensors = prefixed("model.diffusion_model.", unet(REFINER_UNET, seed))
    tensors |= prefixed("first_stage_model.", vae(seed=seed + 1))
    return tensors | prefixed("conditioner.embedders.0.model.", text_model(SDXL_TEXTS[1], seed + 2))


def save_checkpoint(
    path: Path,
    *,
    sd2: bool = False,
    sdxl: bool = False,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    header: dict[str, str] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if header is None:
        path.write_bytes(checkpoint_file(sd2=sd2, sdxl=sdxl, dtype=dtype, seed=seed))
    else:
        save_file(checkpoint_tensors(sd2=sd2, sdxl=sdxl, dtype=dtype, seed=seed), path, metadata=header)
    return path


@lru_cache(maxsize=4)
def checkpoint_file(*, sd2: bool, sdxl: bool, dtype: torch.dtype, seed: int) -> bytes:
    """Caches the checkpoint used by most tests: writing these bytes takes a tenth of the time of making them."""
    return save(checkpoint_tensors(sd2=sd2, sdxl=sdxl, dtype=dtype, seed=seed))
