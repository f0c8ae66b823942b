"""Whole pipelines of diffusers from tiny random networks: seconds on a CPU, no files from anywhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.models.oracles import transformers_tokenizer

Network = TypeVar("Network", bound=nn.Module)

WIDTH = 32  # of the text encoders
SIZE = 32  # of pictures; the VAE halves it once
CALL: Mapping[str, Any] = {"prompt": "a fox", "num_inference_steps": 2, "output_type": "pt"}


def randomised(network: Network, seed: int = 0) -> Network:
    """The network in evaluation mode, with noise on all parameters, so that none of them is neutral."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    return network.eval().requires_grad_(False)


@cache
def tokenizer() -> Any:
    return transformers_tokenizer(Path(tempfile.mkdtemp()))


def text_encoder(*, projection: bool = False) -> Any:
    config = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=WIDTH,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    torch.manual_seed(0)
    return randomised((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def vae() -> Any:
    torch.manual_seed(1)
    return randomised(
        diffusers.AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            sample_size=SIZE,
        )
    )


BLOCKS: Mapping[str, Any] = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
XL: Mapping[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    "use_linear_projection": True,
    "cross_attention_dim": 2 * WIDTH,
}


def unet(**changes: Any) -> Any:
    torch.manual_seed(2)
    up = {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "sample_size": SIZE // 2}
    return randomised(diffusers.UNet2DConditionModel(**{**BLOCKS, **up, **changes}))


def one_level() -> Any:
    """The smallest UNet with attention and skips."""
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    return unet(block_out_channels=(32,), **blocks)


def controlnet(seed: int = 3, **changes: Any) -> Any:
    torch.manual_seed(seed)
    hint = {"conditioning_embedding_out_channels": (16, 32)}
    return randomised(diffusers.ControlNetModel(**{**BLOCKS, **hint, **changes}), seed)


def stable_diffusion(
    kind: str = "StableDiffusionPipeline", network: Any = None, scheduler: Any = None, **parts: Any
) -> Any:
    pipe = getattr(diffusers, kind)(
        unet=network or unet(),
        scheduler=scheduler or diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_xl(kind: str = "StableDiffusionXLPipeline", **parts: Any) -> Any:
    pipe = getattr(diffusers, kind)(
        unet=unet(**XL),
        scheduler=diffusers.EulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(projection=True),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        add_watermarker=False,
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(size: int = SIZE) -> Image.Image:
    return Image.radial_gradient("L").resize((size, size)).convert("RGB")


def mask(size: int = SIZE) -> Image.Image:
    return Image.linear_gradient("L").resize((size, size)).point([0] * 128 + [255] * 128)


SIZED: Mapping[str, Any] = {"height": SIZE, "width": SIZE}
TALLER: Mapping[str, Any] = {"height": 2 * SIZE, "width": SIZE}
COUNTS: tuple[Mapping[str, Any], ...] = ({"guidance_scale": 1.0}, {"num_images_per_prompt": 2})


class Family:
    """How to make one family's pipeline, and what its calls hold besides prompt and steps.

    `alike`: changes of a call that need no new trace. `resized`: a call of another size.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        alike: tuple[Mapping[str, Any], ...] = COUNTS,
        resized: Mapping[str, Any] = TALLER,
        **call: Any,
    ) -> None:
        self.make, self.alike, self.resized, self.call = make, alike, resized, call

    def run(self, pipe: Any, **changes: Any) -> Tensor:
        """The pictures of one call, by a fixed seed."""
        generator = torch.Generator().manual_seed(7)
        call = {**CALL, **self.call, "generator": generator, **changes}
        result = pipe(**{name: value for name, value in call.items() if value is not None}, return_dict=False)
        return torch.as_tensor(result[0])


EVERY: Mapping[str, Family] = {
    "Stable Diffusion": Family(stable_diffusion, **SIZED),
    "Img2Img": Family(
        lambda: stable_diffusion("StableDiffusionImg2ImgPipeline"),
        image=picture(),
        resized={"image": picture(2 * SIZE)},
        strength=0.9,
    ),
    "Inpaint, 4 channels": Family(
        lambda: stable_diffusion("StableDiffusionInpaintPipeline"), image=picture(), mask_image=mask(), **SIZED
    ),
    "Inpaint, 9 channels": Family(
        lambda: stable_diffusion("StableDiffusionInpaintPipeline", unet(in_channels=9)),
        image=picture(),
        mask_image=mask(),
        **SIZED,
    ),
    "ControlNet": Family(
        lambda: stable_diffusion("StableDiffusionControlNetPipeline", controlnet=controlnet()),
        image=picture(),
        resized={"image": picture(2 * SIZE)},
    ),
    "LCM": Family(
        lambda: stable_diffusion(
            "LatentConsistencyModelPipeline", unet(time_cond_proj_dim=16), diffusers.LCMScheduler()
        ),
        **SIZED,
    ),
    "SDXL": Family(stable_diffusion_xl, **SIZED),
    "SDXL Img2Img": Family(
        lambda: stable_diffusion_xl("StableDiffusionXLImg2ImgPipeline"), image=picture(), strength=0.9
    ),
    "SDXL Inpaint": Family(
        lambda: stable_diffusion_xl("StableDiffusionXLInpaintPipeline"), image=picture(), mask_image=mask(), **SIZED
    ),
    "SDXL ControlNet": Family(
        lambda: stable_diffusion_xl("StableDiffusionXLControlNetPipeline", controlnet=controlnet(**XL)),
        image=picture(),
        resized={"image": picture(2 * SIZE)},
    ),
}

# Their networks are those of other rows.
ALIKE = ("Img2Img", "Inpaint, 4 channels", "SDXL Img2Img", "SDXL Inpaint")
FAMILIES = {name: family for name, family in EVERY.items() if name not in ALIKE}
SLOW = {name: EVERY[name] for name in ALIKE}
