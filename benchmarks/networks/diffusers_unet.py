"""diffusers' UNet of the same shape and weights as ours, and the inputs that it reads in another form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modules.core.runner import TextInputs
from modules.models.configs import UNetConfig
from modules.models.layers import timestep_embedding
from modules.models.unet import UNet

SIZES = (1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0)  # of SDXL's vector: original size, crop, target size
SIZE_WIDTH = 256  # of each embedded size


def random_text(config: UNetConfig, rows: int, device: torch.device, dtype: torch.dtype) -> TextInputs:
    """Random text for `rows` rows. SDXL's vector is random pooled text, then embedded sizes."""
    context = torch.randn(rows, 77, config.context_dim, device=device, dtype=dtype)
    if config.vector_dim is None:
        return TextInputs(context)
    pooled = torch.randn(rows, config.vector_dim - len(SIZES) * SIZE_WIDTH, device=device, dtype=dtype)
    sizes = timestep_embedding(torch.tensor(SIZES, device=device), SIZE_WIDTH).flatten().to(dtype)
    return TextInputs(context, torch.cat([pooled, sizes.expand(rows, -1)], dim=1))


def as_diffusers_reads(text: TextInputs) -> dict[str, Any]:
    """The text as arguments of diffusers' UNet."""
    arguments: dict[str, Any] = {"encoder_hidden_states": text.context}
    if text.vector is not None:
        sizes = torch.tensor([SIZES] * len(text.vector), device=text.vector.device)
        pooled = text.vector[:, : -len(SIZES) * SIZE_WIDTH].contiguous()
        arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    return arguments


def diffusers_unet(ours: UNet) -> nn.Module:
    """diffusers' network with our network's weights, renamed by diffusers' own converter."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    weight: Tensor = ours.out[-1].weight
    with weight.device:
        unet = UNet2DConditionModel(**shape_of(ours.config)).to(weight.dtype)
    state = {f"model.diffusion_model.{name}": tensor.clone() for name, tensor in ours.state_dict().items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(state, unet.config))
    return unet.eval().requires_grad_(False)


def shape_of(config: UNetConfig) -> dict[str, Any]:
    """Our config in diffusers' words."""
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in config.depths]
    shape: dict[str, Any] = {
        "block_out_channels": config.channels,
        "down_block_types": down,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "transformer_layers_per_block": [max(1, depth) for depth in config.depths],
        "norm_num_groups": config.groups,
        "cross_attention_dim": config.context_dim,
        "attention_head_dim": [config.heads_at(width) for width in config.channels],
        "use_linear_projection": config.linear_projection,
    }
    if config.vector_dim is not None:
        shape |= {"addition_embed_type": "text_time", "addition_time_embed_dim": SIZE_WIDTH}
        shape["projection_class_embeddings_input_dim"] = config.vector_dim
    return shape
