"""HiresFix: enlarges the result of the first pass and samples again at the larger size."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.generation.job import Job
from modules.generation.options import HiresOptions
from modules.generation.pass_settings import hires_settings
from modules.generation.passes.batch import Batch
from modules.generation.passes.sampling_pass import sample_pass
from modules.images.convert import to_pil, to_tensor
from modules.images.methods import LATENT_METHODS
from modules.images.resize import resize_image, resize_latent


def second_pass(batch: Batch, hires: HiresOptions, latents: Tensor) -> Tensor:
    """Turns clean latents of the first pass into clean latents of the target size. The seeds determine the noise."""
    job = batch.job
    width, height = hires.target(job.options.width, job.options.height)
    enlarged = enlarge(job, hires, latents, width, height)
    settings = hires_settings(job.options, hires)
    return sample_pass(batch, settings, enlarged, job.masked_start_at(width, height))


@torch.inference_mode()
def enlarge(job: Job, hires: HiresOptions, latents: Tensor, width: int, height: int) -> Tensor:
    """Enlarges latents to width x height pixels, either directly or as pictures.

    A start picture that the first pass kept is enlarged itself: the autoencoder would blur it.
    """
    factor = job.model.spec.vae.downscale
    if hires.method in LATENT_METHODS:
        return resize_latent(latents, height // factor, width // factor, hires.method)
    kept = job.source and job.source.kept(job.options.width, job.options.height)
    pictures = [kept] if kept else to_pil(job.decode(latents))
    if job.upscaler is not None:
        pictures = [job.upscaler(picture) for picture in pictures]
    enlarged = job.encode(torch.cat([to_tensor(resize_image(picture, width, height)) for picture in pictures]))
    return enlarged.expand(len(latents), -1, -1, -1)
