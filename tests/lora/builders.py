"""Random LoRA tensors, and models to test them on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.loader.detection.model_spec import ModelSpec
from modules.loader.patcher import ModelPatcher
from tests import tiny

ATTN1 = "down_blocks_0_attentions_0_transformer_blocks_0_attn1"
ATTN2 = "down_blocks_0_attentions_0_transformer_blocks_0_attn2"


def spec(*, sd2: bool = False) -> ModelSpec:
    return ModelSpec(
        unet=tiny.SD2_UNET if sd2 else tiny.SD1_UNET,
        vae=tiny.VAE,
        texts=(tiny.SD2_TEXT if sd2 else tiny.SD1_TEXT,),
        family="SD2.x" if sd2 else "SD1.x",
        prediction="epsilon",
        zero_terminal_snr=False,
        native_size=512,
        inpaint=False,
    )


def patchers(*, sd2: bool = False) -> tuple[ModelPatcher, ModelPatcher]:
    unet = tiny.unet(tiny.SD2_UNET if sd2 else tiny.SD1_UNET)
    text = tiny.text_encoders([tiny.SD2_TEXT if sd2 else tiny.SD1_TEXT])
    return ModelPatcher(unet, "cpu"), ModelPatcher(text, "cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def lora(
    name: str, rows: int, columns: int, *, rank: int = 4, alpha: float | None = 2.0, seed: int = 0
) -> dict[str, Tensor]:
    """Makes a kohya layer for a linear weight [rows, columns]."""
    tensors = {
        f"{name}.lora_up.weight": random(rows, rank, seed=seed),
        f"{name}.lora_down.weight": random(rank, columns, seed=seed + 1),
    }
    return tensors if alpha is None else tensors | {f"{name}.alpha": torch.tensor(alpha)}


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)
    return path


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()
