"""SDXL's whole way to the latents against diffusers' pipelines with the same weights, noise and sigmas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from diffusers.loaders import single_file_utils as convert
from torch import Tensor, nn

from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.sampling.noise import ImageNoise
from modules.sampling.schedules import NoiseSchedule, make_sigmas
from tests import tiny
from tests.models.oracles import (
    diffusers_unet,
    diffusers_vae,
    relative_error,
    transformers_text,
    transformers_tokenizer,
)

TOLERANCE = 1e-4
PROMPT, NEGATIVE = "a red fox in the snow", "blurry"
STEPS, CFG = 4, 3.0
CLIP_L, CLIP_G = tiny.SDXL_TEXTS
SIGMAS = make_sigmas(NoiseSchedule(), "karras", STEPS, sampler="euler")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("sdxl")
    tiny.save_checkpoint(root / "models" / "checkpoints" / "xl.safetensors", sdxl=True, dtype=torch.float32)
    return Session(ModelFolders(root), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """diffusers' networks with the weights of the tiny checkpoint, converted by diffusers."""
    state = tiny.checkpoint_tensors(sdxl=True, dtype=torch.float32)
    unet, vae = diffusers_unet(tiny.SDXL_UNET, pooled=CLIP_G.projection or 0), diffusers_vae(tiny.VAE)
    vae.register_to_config(scaling_factor=0.13025)
    unet.load_state_dict(convert.convert_ldm_unet_checkpoint(dict(state), unet.config))
    vae.load_state_dict(convert.convert_ldm_vae_checkpoint(dict(state), vae.config))
    text, text_2 = transformers_text(CLIP_L), transformers_text(CLIP_G)
    prefix = "conditioner.embedders.0.transformer."
    fill(text, {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)})
    prefix = "conditioner.embedders.1.model."
    fill(text_2, convert.convert_open_clip_checkpoint(text_2, dict(state), prefix=prefix))
    folder = tmp_path_factory.mktemp("tokenizer")
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    return {
        "vae": vae,
        "text_encoder": text,
        "text_encoder_2": text_2,
        "tokenizer": transformers_tokenizer(folder, pad_token="<|endoftext|>"),
        "tokenizer_2": transformers_tokenizer(folder, pad_token="!"),  # the word with the id 0
        "unet": unet,
        "scheduler": scheduler,
    }


def fill(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads the weights, with or without the level "text_model." in their names, as this transformers has it."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items() if "position_ids" not in name}
    encoder.load_state_dict({name: bare[name.removeprefix("text_model.")] for name in encoder.state_dict()})


def ours(session: Session, **changes: object) -> Tensor:
    """The latents after the last step, from the pass that comes last."""
    values: dict[str, Any] = {"width": 64, "height": 96, "steps": STEPS, "seed": 5, "cfg": CFG, "sampler": "euler"}
    options = GenerationOptions(prompt=PROMPT, negative_prompt=NEGATIVE, **values | changes)
    kept: list[Tensor] = []

    def keep(event: Progress) -> None:
        if event.denoised is not None:
            kept.append(event.denoised.clone())

    list(generate(options, session, on_progress=keep))
    return kept[-1]


def theirs(parts: dict[str, Any], **changes: object) -> Tensor:
    pipe = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    noise = ImageNoise([5], (4, 12, 8)).start()
    values: dict[str, Any] = {"width": 64, "height": 96, "guidance_scale": CFG, "output_type": "latent"}
    values |= {"sigmas": SIGMAS, "latents": noise.float() * (1 + SIGMAS[0] ** 2) ** 0.5 / SIGMAS[0]}
    return pipe(PROMPT, negative_prompt=NEGATIVE, **values | changes).images


def test_text_to_image(session: Session, parts: dict[str, Any]) -> None:
    assert relative_error(ours(session), theirs(parts)) < TOLERANCE


def test_sizes(session: Session, parts: dict[str, Any]) -> None:
    told = {"original_size": (300, 512), "negative_original_size": (300, 512)}
    told |= {"crops_coords_top_left": (7, 40), "negative_crops_coords_top_left": (7, 40)}
    expected = theirs(parts, **told)
    assert relative_error(ours(session, original_size="512x300", crop="40,7"), expected) < TOLERANCE
    assert relative_error(ours(session), expected) > 50 * TOLERANCE
