"""Tiny UNets, ControlNets and adapters of diffusers, with calls as its pipelines make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
from torch import nn

from tests.stable_fast.families.trial import Network, Sizes
from tests.stable_fast.pipelines.tiny_pipelines import WIDTH, XL, controlnet, randomised, unet
from tests.stable_fast.pipelines.tiny_tail import animate_diff, ip_adapter, video_diffusion

LEVELS = 2  # both of them halve the picture once
DENOISING = {"sample": "latent", "timestep": "time", "encoder_hidden_states": "prompt", "added_cond_kwargs": "prompt"}
PICTURE = {"batch": (2, 3), "height": (4, 6), "width": (4, 3)}
PROMPTED = {**PICTURE, "tokens": (7, 12)}

SAMPLE_DIMS = {"sample": ("batch", None, "2*height", "2*width"), "timestep": ()}
PROMPT_DIMS = {**SAMPLE_DIMS, "encoder_hidden_states": ("batch", "tokens", None)}

Part = Callable[[Sizes], dict[str, Any]]


def sample(channels: int = 4) -> Part:
    """A noisy latent, and the time as one number for all rows."""
    return lambda at: {
        "sample": torch.randn(at["batch"], channels, LEVELS * at["height"], LEVELS * at["width"]),
        "timestep": torch.tensor(500.0),
        "return_dict": False,
    }


def prompt(at: Sizes) -> dict[str, Any]:
    return {"encoder_hidden_states": torch.randn(at["batch"], at["tokens"], WIDTH)}


def xl_prompt(at: Sizes) -> dict[str, Any]:
    conditions = {"text_embeds": torch.randn(at["batch"], WIDTH), "time_ids": torch.rand(at["batch"], 6)}
    return {
        "encoder_hidden_states": torch.randn(at["batch"], at["tokens"], 2 * WIDTH),
        "added_cond_kwargs": conditions,
    }


XL_DIMS = {"added_cond_kwargs": {"text_embeds": ("batch", None), "time_ids": ("batch", None)}}


def hint(at: Sizes) -> dict[str, Any]:
    return {"controlnet_cond": torch.rand(at["batch"], 3, 4 * at["height"], 4 * at["width"])}


HINT_DIMS = {"controlnet_cond": ("batch", None, "4*height", "4*width")}


def together(*parts: Part) -> Part:
    return lambda at: {name: value for part in parts for name, value in part(at).items()}


def denoiser(
    make: Callable[[], nn.Module], *parts: Part, dims: Mapping[str, Any] | None = None, **changes: Any
) -> Network:
    """A UNet of pictures with a prompt."""
    known: dict[str, Any] = {"sizes": PROMPTED, "moments": DENOISING, **changes}
    return Network(make=make, call=together(*(parts or (sample(), prompt))), dims=PROMPT_DIMS | (dims or {}), **known)


def image_prompt(at: Sizes) -> dict[str, Any]:
    return {"added_cond_kwargs": {"image_embeds": [torch.randn(at["batch"], 1, WIDTH)]}}


def kandinsky() -> Any:
    return unet(
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
    )


def kandinsky_prompt(at: Sizes) -> dict[str, Any]:
    return {
        "encoder_hidden_states": None,
        "added_cond_kwargs": {"image_embeds": torch.randn(at["batch"], WIDTH)},
    }


def deep_floyd() -> Any:
    return unet(
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        encoder_hid_dim=WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )


def video_unet_3d() -> Any:
    torch.manual_seed(3)
    return randomised(
        diffusers.UNet3DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=8,
            norm_num_groups=8,
        )
    )


def plain_unet() -> Any:
    torch.manual_seed(4)
    return randomised(
        diffusers.UNet2DModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
        )
    )


def t2i_adapter() -> Any:
    torch.manual_seed(5)
    return randomised(diffusers.T2IAdapter(3, [32, 64], num_res_blocks=1, downscale_factor=2))


def frames(at: Sizes) -> dict[str, Any]:
    """A latent video, channels before frames."""
    shape = (at["batch"], 4, at["frames"], LEVELS * at["height"], LEVELS * at["width"])
    return {"sample": torch.randn(shape), "timestep": torch.tensor(500.0), "return_dict": False}


FRAMED = {**PROMPTED, "frames": (4, 6)}
FRAME_DIMS = {"sample": ("batch", None, "frames", "2*height", "2*width")}


def moving_picture(at: Sizes) -> dict[str, Any]:
    """What Stable Video Diffusion denoises: frames before channels, conditioned on one picture."""
    return {
        "sample": torch.randn(at["batch"], at["frames"], 8, LEVELS * at["height"], LEVELS * at["width"]),
        "timestep": torch.tensor(1.5),
        "encoder_hidden_states": torch.randn(at["batch"], 1, WIDTH),
        "added_time_ids": torch.rand(at["batch"], 3),
        "return_dict": False,
    }


NETWORKS: Mapping[str, Network] = {
    "UNet of SD1.5": denoiser(unet),
    "UNet of SD2.1": denoiser(lambda: unet(use_linear_projection=True, attention_head_dim=(4, 8))),
    "UNet of SDXL": denoiser(lambda: unet(**XL), sample(), xl_prompt, dims=XL_DIMS),
    "UNet of LCM": denoiser(
        lambda: unet(time_cond_proj_dim=16),
        sample(),
        prompt,
        lambda at: {"timestep_cond": torch.randn(at["batch"], 16)},
        dims={"timestep_cond": ("batch", None)},
    ),
    "UNet with IP-Adapter": denoiser(
        lambda: ip_adapter().unet,
        sample(),
        prompt,
        image_prompt,
        dims={"added_cond_kwargs": {"image_embeds": (("batch", None, None),)}},
    ),
    "UNet of Kandinsky 2.2": denoiser(
        kandinsky,
        sample(),
        kandinsky_prompt,
        sizes=PICTURE,
        dims={"encoder_hidden_states": (), "added_cond_kwargs": {"image_embeds": ("batch", None)}},
    ),
    "ControlNet of SD": denoiser(controlnet, sample(), prompt, hint, dims=HINT_DIMS),
    "ControlNet of SDXL": denoiser(lambda: controlnet(**XL), sample(), xl_prompt, hint, dims=XL_DIMS | HINT_DIMS),
    "T2I-Adapter": Network(
        make=t2i_adapter,
        sizes=PICTURE,
        call=lambda at: {"x": torch.rand(at["batch"], 3, 4 * at["height"], 4 * at["width"])},
        dims={"x": ("batch", None, "4*height", "4*width")},
    ),
    "UNet of Stable Video Diffusion": Network(
        make=lambda: video_diffusion().unet,
        sizes={**PICTURE, "frames": (4, 6)},
        call=moving_picture,
        dims={
            "sample": ("batch", "frames", None, "2*height", "2*width"),
            "timestep": (),
            "encoder_hidden_states": ("batch", None, None),
            "added_time_ids": ("batch", None),
        },
        moments=DENOISING | {"added_time_ids": "prompt"},
    ),
    "UNetMotion (AnimateDiff)": denoiser(
        lambda: animate_diff().unet,
        lambda at: frames({**at, "frames": 4}),
        lambda at: prompt({**at, "batch": 4 * at["batch"]}),
        dims={
            "sample": ("batch", None, None, "2*height", "2*width"),
            "encoder_hidden_states": ("4*batch", "tokens", None),
        },
    ),
    "UNet3D": denoiser(video_unet_3d, frames, prompt, sizes=FRAMED, dims=FRAME_DIMS),
    "UNet of DeepFloyd IF": denoiser(deep_floyd, sample(3), prompt),
    "UNet2D": Network(
        make=plain_unet,
        sizes=PICTURE,
        call=sample(3),
        dims=SAMPLE_DIMS,
        moments={"sample": "latent", "timestep": "time"},
    ),
}
