"""SDXL's whole way to the latents against diffusers' pipelines with the same weights, noise and sigmas."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders import single_file_utils as convert
from diffusers.models.embeddings import Timesteps
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from modules.core.paths import ModelFolders
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage
from modules.generation.pass_settings import first_settings
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.sampling.noise import ImageNoise
from modules.sampling.schedules import make_sigmas
from modules.sampling.trained_noise import noise_schedule
from tests import tiny, tiny_project
from tests.models.oracles import (
    diffusers_controlnet,
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
INPAINT_UNET = replace(tiny.SDXL_UNET, in_channels=9)
UNET_PREFIX = "model.diffusion_model."
SCHEDULER = "simple"  # takes sigmas of whole timesteps: elsewhere, diffusers reads between two and we read the nearest
EULER: dict[str, Any] = {"sampler": "euler", "scheduler": SCHEDULER, "steps": STEPS}
SIGMAS = make_sigmas(noise_schedule(), SCHEDULER, STEPS, sampler="euler")

REFINER_START = 0.6
REFINED_STEPS = 5  # at the timesteps 999, 799 and 599, and the refiner's at 399 and 199


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("sdxl")
    tiny.save_checkpoint(root / "models" / "checkpoints" / "xl.safetensors", sdxl=True, dtype=torch.float32)
    save_file(tiny.refiner_tensors(), root / "models" / "checkpoints" / "xl_refiner.safetensors")
    save_file(inpaint_tensors(), root / "models" / "checkpoints" / "xl_inpaint.safetensors")
    (root / "models" / "controlnet").mkdir()
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


def inpaint_tensors() -> dict[str, Tensor]:
    """The tiny checkpoint with a UNet that reads nine channels: latents, mask, and the picture outside the mask."""
    unet = tiny.prefixed(UNET_PREFIX, tiny.unet(INPAINT_UNET))
    return tiny.checkpoint_tensors(sdxl=True, dtype=torch.float32) | unet


def fill(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads the weights, with or without the level "text_model." in their names, as this transformers has it."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items() if "position_ids" not in name}
    encoder.load_state_dict({name: bare[name.removeprefix("text_model.")] for name in encoder.state_dict()})


def ours(session: Session, **changes: object) -> Tensor:
    """The latents after the last step, from the pass that comes last."""
    values: dict[str, Any] = {"width": 64, "height": 96, "seed": 5, "cfg": CFG}
    options = GenerationOptions(prompt=PROMPT, negative_prompt=NEGATIVE, **values | EULER | changes)
    kept: list[Tensor] = []

    def keep(event: Progress) -> None:
        if event.denoised is not None:
            kept.append(event.denoised.clone())

    list(generate(options, session, on_progress=keep))
    return kept[-1]


def theirs(parts: dict[str, Any], kind: Any = StableDiffusionXLPipeline, **given: object) -> Tensor:
    pipe = kind(**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe(PROMPT, negative_prompt=NEGATIVE, guidance_scale=CFG, output_type="latent", **given).images


def from_noise(parts: dict[str, Any], kind: Any = StableDiffusionXLPipeline, **told: object) -> Tensor:
    noise = ImageNoise([5], (4, 12, 8)).start().float()
    latents = noise * (1 + SIGMAS[0] ** 2) ** 0.5 / SIGMAS[0]  # diffusers multiplies by the first sigma
    return theirs(parts, kind, **{"sigmas": SIGMAS} | told, latents=latents, width=64, height=96)


def test_text_to_image(session: Session, parts: dict[str, Any]) -> None:
    assert relative_error(ours(session), from_noise(parts)) < TOLERANCE


def test_sizes(session: Session, parts: dict[str, Any]) -> None:
    told = {"original_size": (300, 512), "negative_original_size": (300, 512)}
    told |= {"crops_coords_top_left": (7, 40), "negative_crops_coords_top_left": (7, 40)}
    expected = from_noise(parts, **told)
    assert relative_error(ours(session, original_size="512x300", crop="40,7"), expected) < TOLERANCE
    assert relative_error(ours(session), expected) > 50 * TOLERANCE


def test_each_pass_of_hires_fix_gives_its_own_size(session: Session) -> None:
    seen: list[Tensor] = []
    unet = session.model(GenerationOptions(prompt="")).unet.module

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[4][:, CLIP_G.projection :])

    with unet.register_forward_pre_hook(keep):
        ours(session, steps=2, hires=HiresOptions(scale=2.0, denoise=1.0))
    embed = Timesteps(8, flip_sin_to_cos=True, downscale_freq_shift=0)
    sizes = [(96.0, 64.0), (96.0, 64.0), (192.0, 128.0), (192.0, 128.0)]
    for found, (height, width) in zip(seen, sizes, strict=True):
        expected = embed(torch.tensor([height, width, 0, 0, height, width])).flatten()
        torch.testing.assert_close(found, expected.expand(2, -1), rtol=0, atol=1e-5)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A picture of 64 x 96 pixels, and a mask over its middle."""
    mask = Image.new("L", (64, 96))
    mask.paste(255, (16, 24, 48, 80))
    mask.save(tmp_path / "mask.png")
    return tiny_project.save_photo(tmp_path / "photo.png", 64, 96), tmp_path / "mask.png"


def start_from(
    pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: Any, *, masked: bool
) -> tuple[InitImage, dict[str, Any]]:
    """Returns what tells ours, and what tells diffusers' pipeline `kind`, to start from the picture.

    diffusers takes the mean of the encoded picture here, as we do, not a sample.
    """
    photo, mask = pictures
    init = InitImage(image=photo, denoise=0.6, mask=mask if masked else None, mask_blur=0)
    for name, replacement in (
        ("randn_tensor", lambda shape, **_: start_noise(shape)),
        ("retrieve_latents", lambda encoded, **_: encoded.latent_dist.mode()),
    ):
        monkeypatch.setattr(sys.modules[kind.__module__], name, replacement)
    settings = first_settings(GenerationOptions(prompt="", init=init, **EULER))
    sigmas = settings.sigmas(noise_schedule())
    given: dict[str, Any] = {"image": Image.open(photo), "sigmas": [1.1 * sigmas[0], *sigmas]}
    given |= {"strength": 1 - 1 / len(sigmas)}  # diffusers leaves out the first step
    return init, given | ({"mask_image": Image.open(mask), "width": 64, "height": 96} if masked else {})


def start_noise(shape: tuple[int, ...]) -> Tensor:
    return ImageNoise([5], tuple(shape[1:])).start()


@pytest.mark.parametrize("masked", [False, True])
def test_a_picture_to_start_from(
    session: Session,
    parts: dict[str, Any],
    pictures: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    *,
    masked: bool,
) -> None:
    kind = StableDiffusionXLInpaintPipeline if masked else StableDiffusionXLImg2ImgPipeline
    init, given = start_from(pictures, monkeypatch, kind, masked=masked)
    assert relative_error(ours(session, init=init), theirs(parts, kind, **given)) < TOLERANCE


@pytest.fixture(scope="module")
def refiner_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """diffusers' networks of the refiner, which has a text encoder and a UNet of its own."""
    state = tiny.refiner_tensors()
    unet, text_2 = diffusers_unet(tiny.REFINER_UNET, pooled=CLIP_G.projection or 0), transformers_text(CLIP_G)
    unet.load_state_dict(convert.convert_ldm_unet_checkpoint(dict(state), unet.config))
    prefix = "conditioner.embedders.0.model."
    fill(text_2, convert.convert_open_clip_checkpoint(text_2, dict(state), prefix=prefix))
    own = {"unet": unet, "text_encoder": None, "tokenizer": None, "text_encoder_2": text_2}
    return parts | own | {"requires_aesthetics_score": True}


def test_refiner(session: Session, parts: dict[str, Any], refiner_parts: dict[str, Any]) -> None:
    """The base ends and the refiner starts where diffusers' documentation has them do so."""
    given = {"sigmas": make_sigmas(noise_schedule(), SCHEDULER, REFINED_STEPS, sampler="euler")}
    noisy = from_noise(parts, **given, denoising_end=REFINER_START)
    expected = theirs(
        refiner_parts, StableDiffusionXLImg2ImgPipeline, image=noisy, **given, denoising_start=REFINER_START
    )
    refined = ours(session, refiner="xl_refiner", refiner_start=REFINER_START, steps=REFINED_STEPS)
    assert relative_error(refined, expected) < TOLERANCE
    assert relative_error(ours(session, steps=REFINED_STEPS), expected) > 50 * TOLERANCE


def test_the_inpainting_checkpoint(
    session: Session, parts: dict[str, Any], pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this checkpoint, diffusers lets the part outside the mask drift. We keep it, so the oracle does too: after
    each step by diffusers' own rule for ordinary checkpoints."""
    unet = diffusers_unet(INPAINT_UNET, pooled=CLIP_G.projection or 0)
    unet.load_state_dict(convert.convert_ldm_unet_checkpoint(inpaint_tensors(), unet.config))
    init, given = start_from(pictures, monkeypatch, StableDiffusionXLInpaintPipeline, masked=True)
    repainted = torch.zeros(1, 1, 12, 8)
    repainted[..., 3:10, 2:6] = 1

    def keep_outside(pipe: Any, step: int, _: object, values: dict[str, Tensor]) -> dict[str, Tensor]:
        latent = pipe.vae.encode(pipe.image_processor.preprocess(given["image"])).latent_dist.mode() * 0.13025
        sigma = pipe.scheduler.sigmas[step + 2]  # the first step is left out, and this step is done
        return {"latents": torch.lerp(latent + sigma * start_noise(latent.shape), values["latents"], repainted)}

    kind, others = StableDiffusionXLInpaintPipeline, parts | {"unet": unet}
    expected = theirs(others, kind, callback_on_step_end=keep_outside, **given)
    assert relative_error(ours(session, init=init, checkpoint="xl_inpaint"), expected) < TOLERANCE


def test_controlnet(session: Session, parts: dict[str, Any], pictures: tuple[Path, Path]) -> None:
    control = tiny.randomise(diffusers_controlnet(tiny.SDXL_UNET, pooled=CLIP_G.projection or 0))
    save_file(control.state_dict(), session.folders.folders("controlnet")[0] / "net.safetensors")
    photo, _ = pictures
    told = {"image": Image.open(photo), "controlnet_conditioning_scale": 0.7}
    expected = from_noise(parts | {"controlnet": control}, StableDiffusionXLControlNetPipeline, **told)
    controls = (ControlChoice(name="net", image=photo, strength=0.7),)
    assert relative_error(ours(session, controls=controls), expected) < TOLERANCE
    assert relative_error(ours(session), expected) > 50 * TOLERANCE
