"""Whole pipelines of diffusers beyond Stable Diffusion and SDXL, from tiny random networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from tests.stable_fast.pipelines.tiny_pipelines import (
    COUNTS,
    SIZE,
    SIZED,
    WIDTH,
    Family,
    picture,
    randomised,
    stable_diffusion,
    text_encoder,
    tokenizer,
    unet,
    vae,
)

VIDEOS: tuple[Mapping[str, Any], ...] = ({"num_videos_per_prompt": 2},)
GUIDANCES: tuple[Mapping[str, Any], ...] = ({"max_guidance_scale": 1.0, "min_guidance_scale": 1.0},)


def animate_diff() -> Any:
    adapter = diffusers.MotionAdapter(
        block_out_channels=(32, 64), motion_layers_per_block=1, motion_norm_num_groups=8, motion_num_attention_heads=4
    )
    pipe = diffusers.AnimateDiffPipeline(
        unet=unet(),
        motion_adapter=randomised(adapter),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, beta_schedule="linear"),
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_encoder(size: int = SIZE) -> Any:
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=WIDTH,
        image_size=size,
        patch_size=size // 4,
    )
    torch.manual_seed(4)
    return randomised(CLIPVisionModelWithProjection(config))


def video_diffusion() -> Any:
    torch.manual_seed(5)
    network = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=SIZE // 2,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        num_attention_heads=8,
        projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
    )
    decoder = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    )
    pipe = diffusers.StableVideoDiffusionPipeline(
        unet=randomised(network),
        vae=randomised(decoder),
        scheduler=diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction",
            timestep_type="continuous",
            timestep_spacing="leading",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
        ),
        image_encoder=image_encoder(224),
        feature_extractor=CLIPImageProcessor(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def t5_encoder() -> Any:
    torch.manual_seed(6)
    config = T5Config(vocab_size=49408, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return randomised(T5EncoderModel(config))


def ip_adapter() -> Any:
    """Stable Diffusion with an IP-Adapter from a file as diffusers reads it."""
    pipe = stable_diffusion(image_encoder=image_encoder())
    names = {
        name: torch.randn(layer.to_k.out_features, WIDTH, generator=torch.Generator().manual_seed(number)) * 0.2
        for number, (name, layer) in enumerate(pipe.unet.named_modules())
        if name.endswith("attn2")
    }
    layers = {f"{2 * n + 1}.to_{kind}_ip.weight": w for n, w in enumerate(names.values()) for kind in "kv"}
    projection = {
        "proj.weight": torch.randn(4 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(9)) * 0.2,
        "proj.bias": torch.zeros(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
    }
    pipe.load_ip_adapter(
        {"image_proj": projection, "ip_adapter": layers}, subfolder="", weight_name="", image_encoder_folder=None
    )
    return pipe


def pixart() -> Any:
    torch.manual_seed(7)
    network = diffusers.PixArtTransformer2DModel(
        sample_size=SIZE // 2,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=WIDTH,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae(),
        transformer=randomised(network),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_3() -> Any:
    torch.manual_seed(8)
    network = diffusers.SD3Transformer2DModel(
        sample_size=SIZE // 2,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=randomised(network),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=shifted_vae(),
        text_encoder=text_encoder(projection=True),
        tokenizer=tokenizer(),
        text_encoder_2=text_encoder(projection=True),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def shifted_vae() -> Any:
    network = vae()
    network.register_to_config(shift_factor=0.06, scaling_factor=1.5)
    return network


def flux_network(seed: int) -> diffusers.FluxTransformer2DModel:
    """One double and one single block, for latents of 16 channels and text of WIDTH."""
    torch.manual_seed(seed)
    network = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    return randomised(network)


def flux() -> Any:
    pipe = diffusers.FluxPipeline(
        transformer=flux_network(9),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=shifted_vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=tokenizer(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


LATER: dict[str, Family] = {
    "AnimateDiff": Family(animate_diff, alike=COUNTS[:1] + VIDEOS, num_frames=3, **SIZED),
    "IP-Adapter": Family(ip_adapter, ip_adapter_image=picture(), **SIZED),
    "Stable Video Diffusion": Family(
        video_diffusion,
        alike=GUIDANCES + VIDEOS,
        prompt=None,
        image=picture(),
        num_frames=4,
        decode_chunk_size=2,
        **SIZED,
    ),
    "PixArt": Family(pixart, use_resolution_binning=False, **SIZED),
    "SD3": Family(stable_diffusion_3, **SIZED),
    "Flux": Family(flux, max_sequence_length=48, **SIZED),
}
