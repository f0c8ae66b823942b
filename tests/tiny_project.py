"""Project folders with a tiny checkpoint, matching LoRAs and ControlNet, and initial pictures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save, save_file
from torch import Tensor

from modules.core.paths import KINDS, ModelFolders
from modules.generation.session import Session
from modules.models.union_controlnet import UnionConfig, UnionControlNet
from tests import tiny

# Modules by kohya's names, covering every kind of layer: attention, feed-forward, convolution, text.
UNET_LAYERS = (
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
    "lora_unet_up_blocks_3_resnets_1_conv1",
    "lora_unet_up_blocks_3_resnets_1_time_emb_proj",
)
TEXT_LAYERS = ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "lora_te_text_model_encoder_layers_1_mlp_fc1")
SDXL_LAYERS = (
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_2_attentions_0_transformer_blocks_1_attn2_to_v",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
    "lora_unet_up_blocks_2_resnets_1_conv1",
    "lora_unet_add_embedding_linear_1",
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1",
)
RANK = 4


def project(root: Path, *, sd2: bool = False, sdxl: bool = False) -> Path:
    """Checkpoint `tiny`, LoRAs `ink` and `clay`, ControlNet `edges`, and a picture `photo.png`, all of one family."""
    for kind in KINDS:
        (root / "models" / kind).mkdir(parents=True)
    models = root / "models"
    tiny.save_checkpoint(models / "checkpoints" / "tiny.safetensors", sd2=sd2, sdxl=sdxl)
    save_lora(models / "loras" / "ink.safetensors", sd2=sd2, sdxl=sdxl, seed=11)
    save_lora(models / "loras" / "clay.safetensors", sd2=sd2, sdxl=sdxl, seed=12)
    save_controlnet(models / "controlnet" / "edges.safetensors", sd2=sd2, sdxl=sdxl)
    save_photo(root / "photo.png")
    return root


def session_at(root: Path) -> Session:
    return Session(ModelFolders(root), device="cpu")


def save_lora(path: Path, *, sd2: bool = False, sdxl: bool = False, seed: int = 0) -> Path:
    """Writes a kohya file with a change large enough to be visible in the picture."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, (rows, columns, *kernel) in (_sdxl_shapes() if sdxl else _layer_shapes(sd2=sd2)).items():
        scale = (columns * RANK) ** -0.5
        tensors[f"{name}.lora_up.weight"] = torch.randn(rows, RANK, *([1] * len(kernel)), generator=generator)
        tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, columns, *kernel, generator=generator) * scale
        tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, path)
    return path


def _layer_shapes(*, sd2: bool) -> dict[str, tuple[int, ...]]:
    unet, text = (tiny.SD2_UNET, tiny.SD2_TEXT) if sd2 else (tiny.SD1_SHORT_UNET, tiny.SD1_TEXT)
    first, last = unet.channels[0], unet.channels[-1]
    up_input = unet.channels[0] * 2  # channels of the block and of the skip connection
    shapes = [
        (first, first),
        (first, unet.context_dim),
        (last * 8, last),
        (first, up_input, 3, 3),
        (first, first * 4),
        (text.width, text.width),
        (text.mlp_width, text.width),
    ]
    return dict(zip((*UNET_LAYERS, *TEXT_LAYERS), shapes, strict=True))


def _sdxl_shapes() -> dict[str, tuple[int, ...]]:
    unet, (clip_l, clip_g) = tiny.SDXL_UNET, tiny.SDXL_TEXTS
    first, middle, last = unet.channels
    shapes = [
        (middle, middle),
        (last, unet.context_dim),
        (last * 8, last),
        (first, first * 2, 3, 3),
        (unet.time_dim, unet.vector_dim or 0),
        (clip_l.width, clip_l.width),
        (clip_g.mlp_width, clip_g.width),
    ]
    return dict(zip(SDXL_LAYERS, shapes, strict=True))


def save_controlnet(path: Path, *, sd2: bool = False, sdxl: bool = False) -> Path:
    path.write_bytes(controlnet_file(sd2=sd2, sdxl=sdxl))
    return path


@cache
def controlnet_file(*, sd2: bool, sdxl: bool = False) -> bytes:
    network = tiny.controlnet(tiny.SDXL_UNET if sdxl else tiny.SD2_UNET if sd2 else tiny.SD1_SHORT_UNET)
    return save(tiny.prefixed("control_model.", network))


def save_union(path: Path) -> Path:
    """Saves a union ControlNet for the tiny SD1.x. It knows the first six kinds, like the first published one."""
    network = UnionControlNet(tiny.SD1_SHORT_UNET, UnionConfig(kinds=6, time_width=16))
    path.write_bytes(save(tiny.prefixed("", tiny.randomise(network, 6))))
    return path


def save_photo(path: Path, width: int = 64, height: int = 64) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path
