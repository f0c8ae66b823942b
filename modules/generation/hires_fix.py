"""HiresFix: enlarges the result of the first pass and samples again at the larger size."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.generation.job import Job
from modules.generation.options import HiresOptions
from modules.generation.pass_settings import hires_settings
from modules.generation.sampling_pass import Outside, sample_pass
from modules.images.convert import to_pil, to_tensor
from modules.images.methods import LATENT_METHODS
from modules.images.resize import resize_image, resize_latent


def second_pass(job: Job, hires: HiresOptions, indices: range, latents: Tensor, outside: Outside) -> Tensor:
    """Turns clean latents of the first pass into clean latents of the target size. The seeds determine the noise."""
    width, height = hires.target(job.options.width, job.options.height)
    enlarged = enlarge(job, hires, latents, width, height)
    settings = hires_settings(job.options, hires)
    return sample_pass(job, settings, job.seeds(indices), enlarged, outside, job.start_at(width, height))


@torch.inference_mode()
def enlarge(job: Job, hires: HiresOptions, latents: Tensor, width: int, height: int) -> Tensor:
    """Enlarges latents to width x height pixels, either directly or as pictures."""
    factor = job.model.spec.vae.downscale
    if hires.method in LATENT_METHODS:
        return resize_latent(latents, height // factor, width // factor, hires.method)
    pictures = to_pil(job.decode(latents))
    if job.upscaler is not None:
        pictures = [job.upscaler(picture) for picture in pictures]
    return job.encode(torch.cat([to_tensor(resize_image(picture, width, height)) for picture in pictures]))
