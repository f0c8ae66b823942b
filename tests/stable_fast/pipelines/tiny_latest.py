"""Whole pipelines of diffusers that take a language model's embeddings: these are given, so that none is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from torch import Tensor

from tests.stable_fast.pipelines.tiny_pipelines import SIZED, TALLER, WIDTH, Family, randomised, vae

CHANNELS = 4  # of latents


def words(count: int, seed: int, *batch: int) -> Tensor:
    """The embeddings of a prompt [*batch, count, WIDTH]."""
    return torch.randn(*batch, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def assembled(kind: str, **parts: Any) -> Any:
    nothing = {"text_encoder": None, "tokenizer": None}
    pipe = getattr(diffusers, kind)(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), **nothing, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def z_image() -> Any:
    torch.manual_seed(3)
    network = diffusers.ZImageTransformer2DModel(
        **{"in_channels": CHANNELS, "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2},
        **{"cap_feat_dim": WIDTH, "axes_dims": [8, 4, 4], "axes_lens": [256, 32, 32]},
    )
    decoder = vae()
    decoder.register_to_config(shift_factor=0.06, scaling_factor=1.5)
    return assembled("ZImagePipeline", transformer=randomised(network), vae=decoder)


def video_vae(kind: str, **config: Any) -> Any:
    torch.manual_seed(4)
    latents: Mapping[str, Any] = {"latents_mean": [0.0] * CHANNELS, "latents_std": [1.0] * CHANNELS}
    return randomised(getattr(diffusers, kind)(z_dim=CHANNELS, base_dim=8, num_res_blocks=1, **latents, **config))


def qwen_image() -> Any:
    torch.manual_seed(5)
    network = diffusers.QwenImageTransformer2DModel(
        **{"in_channels": 4 * CHANNELS, "out_channels": CHANNELS, "axes_dims_rope": (8, 4, 4), "num_layers": 2},
        **{"joint_attention_dim": WIDTH, "attention_head_dim": 16, "num_attention_heads": 2},
    )
    decoder = video_vae("AutoencoderKLQwenImage", dim_mult=[1, 2], temperal_downsample=[False])
    return assembled("QwenImagePipeline", transformer=randomised(network), vae=decoder)


def wan() -> Any:
    torch.manual_seed(6)
    network = diffusers.WanTransformer3DModel(
        **{"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": CHANNELS, "out_channels": CHANNELS},
        **{"text_dim": WIDTH, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2},
    )
    decoder = video_vae("AutoencoderKLWan", dim_mult=[1, 1, 1, 1], temperal_downsample=[False, True, True])
    return assembled("WanPipeline", transformer=randomised(network), vae=decoder)


LATEST: Mapping[str, Family] = {
    "Qwen-Image": Family(
        qwen_image,
        alike=({"true_cfg_scale": 1.0},),
        prompt=None,
        prompt_embeds=words(7, 1, 1),
        prompt_embeds_mask=torch.ones(1, 7, dtype=torch.long),
        negative_prompt_embeds=words(5, 2, 1),
        negative_prompt_embeds_mask=torch.ones(1, 5, dtype=torch.long),
        **SIZED,
    ),
    "Z-Image": Family(
        z_image,
        alike=(),
        prompt=None,
        prompt_embeds=[words(7, 1)],
        negative_prompt_embeds=[words(5, 2)],
        **SIZED,
    ),
    "Wan": Family(
        wan,
        alike=({"guidance_scale": 1.0}, {"num_videos_per_prompt": 2}),
        resized={**TALLER, "num_frames": 5},
        prompt=None,
        prompt_embeds=words(7, 1, 1),
        negative_prompt_embeds=words(7, 2, 1),
        num_frames=5,
        **SIZED,
    ),
}
