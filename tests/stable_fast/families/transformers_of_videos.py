"""Tiny transformers of diffusers that denoise videos, with calls as its pipelines make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tests.stable_fast.families.transformers_of_pictures import (
    HEADS,
    MASK_DIMS,
    MOMENTS,
    PATCHES,
    PICTURE,
    PROMPT_DIMS,
    made,
    mask,
    on_pictures,
    picture,
    times,
)
from tests.stable_fast.families.trial import Network, Sizes
from tests.stable_fast.pipelines.tiny_pipelines import WIDTH

FRAMES = {**PICTURE, "frames": (4, 2)}


def video(at: Sizes) -> dict[str, Any]:
    """A latent video, channels before frames."""
    shape = (at["batch"], 4, at["frames"], 2 * at["height"], 2 * at["width"])
    return {**picture()(at), "hidden_states": torch.randn(shape)}


def video_by_frames(at: Sizes) -> dict[str, Any]:
    """A latent video, frames before channels, and a prompt of as many tokens as CogVideoX always takes."""
    call = video({**at, "tokens": 7})
    return {**call, "hidden_states": call["hidden_states"].transpose(1, 2)}


def ltx_call(at: Sizes) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(at["batch"], at["patches"], 8),
        "encoder_hidden_states": torch.randn(at["batch"], at["tokens"], WIDTH),
        "timestep": times(at),
        "encoder_attention_mask": mask(at).long(),
        "video_coords": torch.rand(at["batch"], 3, at["patches"]) * 20,
        "return_dict": False,
    }


NETWORKS: Mapping[str, Network] = {
    "Wan": on_pictures(
        made(
            "WanTransformer3DModel",
            **{"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4},
            **{"text_dim": WIDTH, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2},
        ),
        video,
        {"hidden_states": ("batch", None, "frames", "2*height", "2*width")},
        sizes=FRAMES,
    ),
    "CogVideoX": on_pictures(
        made(
            "CogVideoXTransformer3DModel",
            **{"in_channels": 4, "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": WIDTH, "num_layers": 1},
            **{"sample_width": 8, "sample_height": 8, "sample_frames": 13, "max_text_seq_length": 7, **HEADS},
            use_rotary_positional_embeddings=True,
        ),
        video_by_frames,
        {
            "hidden_states": ("batch", "frames", None, "2*height", "2*width"),
            "encoder_hidden_states": ("batch", None, None),
        },
        sizes={name: values for name, values in FRAMES.items() if name != "tokens"},
    ),
    "LTX-Video": Network(
        make=made(
            "LTXVideoTransformer3DModel",
            **{"in_channels": 8, "out_channels": 8, "num_layers": 1, "cross_attention_dim": 32, **HEADS},
            **{"caption_channels": WIDTH},
        ),
        sizes=PATCHES,
        call=ltx_call,
        dims={
            "hidden_states": ("batch", "patches", None),
            "timestep": ("batch",),
            "video_coords": ("batch", None, "patches"),
            **PROMPT_DIMS,
            **MASK_DIMS,
        },
        moments=MOMENTS,
    ),
}
