"""The storyline: one request in, finished pictures out, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from modules.core.device import release_memory
from modules.core.errors import OutOfMemoryError
from modules.core.progress import CancelToken
from modules.generation.job import Job, prepare_job
from modules.generation.latents import decode
from modules.generation.metadata import to_parameters
from modules.generation.options import GenerationOptions
from modules.generation.progress import OnProgress, Progress
from modules.generation.sampling_pass import Outside, run_pass
from modules.generation.session import Session
from modules.images.convert import to_pil
from modules.version import VERSION


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture; `parameters` is its metadata text, `request_seed` the seed of the request it belongs to."""

    image: Image.Image
    seed: int
    request_seed: int
    parameters: str


def generate(
    options: GenerationOptions,
    session: Session,
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Picture]:
    """Yields each picture as soon as it is finished.

    Raises a LightDiffusionError whose text is meant for people; Cancelled once `cancel` is set.
    """
    with memory_errors_for_people(session):
        job = prepare_job(options, session)
        batches = job.batches()
        for number, indices in enumerate(batches, start=1):
            outside = Outside(on_progress=on_progress, cancel=cancel, batch=number, batches=len(batches))
            yield from finish(job, indices, sample(job, indices, outside), outside)


def sample(job: Job, indices: range, outside: Outside) -> Tensor:
    """Clean latents [N, C, h, w] of one batch."""
    options, vae = job.options, job.model.spec.vae
    assert options.width and options.height
    shape = (vae.latent_channels, options.height // vae.downscale, options.width // vae.downscale)
    seeds = [job.seed + index for index in indices]
    return run_pass(job, job.first_pass, seeds, torch.zeros(len(seeds), *shape), outside)


def finish(job: Job, indices: range, latents: Tensor, outside: Outside) -> Iterator[Picture]:
    """Decodes one by one, so that the first picture is there before the last one is decoded."""
    for done, (index, latent) in enumerate(zip(indices, latents, strict=True), start=1):
        if job.options.only not in (None, index):
            continue
        if outside.cancel is not None:
            outside.cancel.check()
        with torch.inference_mode():
            image = to_pil(decode(job.model.vae, latent[None]))[0]
        if outside.on_progress is not None:
            outside.on_progress(
                Progress(
                    phase="decoding", batch=outside.batch, batches=outside.batches, step=done, steps=len(indices)
                )
            )
        yield Picture(
            image=image,
            seed=job.seed + index,
            request_seed=job.seed,
            parameters=to_parameters(job.options, index, facts(job)),
        )


def facts(job: Job) -> dict[str, str]:
    """What the picture's metadata says beyond the request."""
    return {
        "Model hash": job.model.sha256,
        "Model": job.model.name,
        "RNG": "CPU",
        "Precision": str(job.dtype).removeprefix("torch."),
        "Torch": torch.__version__,
        "Version": f"LightDiffusion-Next {VERSION}",
    }


@contextmanager
def memory_errors_for_people(session: Session) -> Iterator[None]:
    """Turns torch's out-of-memory errors into one sentence, after giving the memory back."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        release_memory(session.device)
        raise OutOfMemoryError(out_of_memory_text(session)) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what the CPU allocator says
            raise
        raise OutOfMemoryError(out_of_memory_text(session)) from error


def out_of_memory_text(session: Session) -> str:
    place = "GPU" if session.device.type == "cuda" else "machine"
    return f"Not enough memory on the {place}: try a smaller size or batch, or close other programs."
