"""diffusers' and transformers' networks of the same shape as ours, used as independent references."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from modules.models.configs import TextConfig, UNetConfig, VAEConfig


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference as a fraction of the expected values' root mean square."""
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.square().mean().sqrt()).item()


def _shared(config: UNetConfig) -> dict[str, object]:
    heads = [config.heads_at(width) for width in config.channels]
    return {
        "in_channels": config.in_channels,
        "block_out_channels": config.channels,
        "layers_per_block": config.res_blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in config.attention_levels],
        "cross_attention_dim": config.context_dim,
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "norm_num_groups": config.groups,
        "use_linear_projection": config.linear_projection,
    }


def diffusers_unet(config: UNetConfig) -> UNet2DConditionModel:
    up_types = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(config.attention_levels)]
    return UNet2DConditionModel(out_channels=config.out_channels, up_block_types=up_types, **_shared(config)).eval()


def diffusers_controlnet(config: UNetConfig) -> ControlNetModel:
    return ControlNetModel(conditioning_embedding_out_channels=(16, 32, 96, 256), **_shared(config)).eval()


def diffusers_vae(config: VAEConfig) -> AutoencoderKL:
    levels = len(config.channels)
    return AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=config.res_blocks,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
    ).eval()


def transformers_text(config: TextConfig, *, layers: int | None = None) -> CLIPTextModel:
    """`layers` truncates the encoder, as diffusers does when saving SD2's."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=layers or config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.positions,
            hidden_act=config.activation,
            eos_token_id=49407,
            attn_implementation="sdpa",
        )
    ).eval()


def random_ids(batch: int, length: int = 77) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 49406, (batch, length), generator=generator)
