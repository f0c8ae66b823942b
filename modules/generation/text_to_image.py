"""Runs a whole generation: takes one request and yields finished pictures one by one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from modules.core.device import lacks_memory, made_current, raise_if_broken, release_memory
from modules.core.errors import DeviceError, ModelFileError, OutOfMemoryError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture
from modules.generation.hires_fix import second_pass
from modules.generation.job import Job, prepare_job
from modules.generation.metadata.write import to_parameters
from modules.generation.options import GenerationOptions, ResolvedOptions
from modules.generation.pass_settings import first_settings
from modules.generation.progress import OnProgress
from modules.generation.sampling_pass import Outside, sample_pass
from modules.generation.session import Session
from modules.images.convert import to_pil
from modules.version import VERSION


def generate(
    options: GenerationOptions,
    session: Session,
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Picture]:
    """Yields each picture as soon as it is finished.

    Raises a LightDiffusionError with a readable message; Cancelled once `cancel` is set.
    """
    with made_current(session.device), device_errors_for_people(session):
        job = job_with_room(options, session)
        batches = job.batches()
        for number, indices in enumerate(batches, start=1):
            outside = Outside(on_progress=on_progress, cancel=cancel, batch=number, batches=len(batches))
            job = yield from batch_with_room(job, indices, outside)


def job_with_room(options: GenerationOptions, session: Session) -> Job:
    """Prepares the job; makes room on the GPU and tries again if memory runs out."""
    try:
        return prepare_job(options, session)
    except RuntimeError as error:
        if not lacks_memory(error) or not session.make_room():
            raise
    return prepare_job(options, session)  # not in the handler: the error keeps tensors alive


def batch_with_room(job: Job, indices: range, outside: Outside) -> Generator[Picture, None, Job]:
    """Makes one batch; makes room on the GPU and goes on if memory runs out. Returns the job for the next batch."""
    done = 0
    try:
        for picture in make_batch(job, indices, outside):
            yield picture
            done += 1
        return job
    except RuntimeError as error:
        roomier = job.with_room() if lacks_memory(error) else None
        if roomier is None:
            raise
    yield from islice(make_batch(roomier, indices, outside), done, None)
    return roomier


def make_batch(job: Job, indices: range, outside: Outside) -> Iterator[Picture]:
    """Makes the pictures of one batch: first pass, second pass if requested, decoding."""
    options, hires = job.options, job.options.hires
    latents = first_pass(job, indices, options.width, options.height, outside)
    if hires is None:
        yield from finished_pictures(job, options, indices, latents, outside)
        return
    if hires.keep_first_pass:
        yield from finished_pictures(job, replace(options, hires=None), indices, latents, outside)
    yield from finished_pictures(job, options, indices, second_pass(job, hires, indices, latents, outside), outside)


def first_pass(job: Job, indices: range, width: int, height: int, outside: Outside) -> Tensor:
    """Returns clean latents [N, C, h, w] of one batch."""
    vae, seeds = job.model.spec.vae, job.seeds(indices)
    start = job.start_at(width, height)
    if start is not None:
        return sample_pass(job, first_settings(job.options), seeds, start.latents(seeds), outside, start)
    empty = torch.zeros(len(seeds), vae.latent_channels, height // vae.downscale, width // vae.downscale)
    return sample_pass(job, first_settings(job.options), seeds, empty, outside)


def finished_pictures(
    job: Job, options: ResolvedOptions, indices: range, latents: Tensor, outside: Outside
) -> Iterator[Picture]:
    """Decodes one picture at a time, so the first one is ready early. `options` goes into the metadata."""
    height, width = (side * job.model.spec.vae.downscale for side in latents.shape[-2:])
    start = job.start_at(width, height)
    kept = [pair for pair in zip(indices, latents, strict=True) if options.only in (None, pair[0])]
    outside.begin("decoding", len(kept))
    for done, (index, latent) in enumerate(kept, start=1):
        if outside.cancel is not None:
            outside.cancel.check()
        with torch.inference_mode():
            image = to_pil(job.decode(latent[None]))[0]
        outside.decoded(done, len(kept))
        yield Picture(
            image=start.put_back(image) if start else image,
            seed=job.options.seed + index,
            request_seed=job.options.seed,
            parameters=to_parameters(options, index, facts(job), job.hashes),
        )


def facts(job: Job) -> dict[str, str]:
    """Returns the metadata that is not part of the request."""
    return {
        "Model hash": job.model.sha256,
        "Model": job.model.name,
        **outside_file(job),
        "RNG": "CPU",
        "Precision": str(job.dtype).removeprefix("torch."),
        "Torch": torch.__version__,
        "Version": f"LightDiffusion-Next {VERSION}",
    }


def outside_file(job: Job) -> dict[str, str]:
    """Returns the checkpoint's file name if it was given as a path, since the name alone is not enough to find it."""
    try:
        named = job.session.folders.find("checkpoints", job.model.name).resolve()
    except ModelFileError:
        named = None
    path = job.model.path.resolve()
    return {} if named == path else {"Model path": path.name}


@contextmanager
def device_errors_for_people(session: Session) -> Generator[None, None, None]:
    """Converts out-of-memory errors and device faults to one readable sentence; releases reserved memory first."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        release_memory(session.device)
        raise OutOfMemoryError(out_of_memory_text(session)) from error
    except RuntimeError as error:
        if lacks_memory(error):
            raise OutOfMemoryError(out_of_memory_text(session)) from error
        try:
            raise_if_broken()
        except torch.AcceleratorError as fault:
            raise DeviceError(fault_text(fault)) from error
        if isinstance(error, torch.AcceleratorError):
            raise DeviceError(fault_text(error)) from error
        raise


def fault_text(fault: torch.AcceleratorError) -> str:
    reason = str(fault).splitlines()[0].removeprefix("CUDA error: ")
    return (
        f"The GPU stopped with a fault ({reason}). Start the program again; if it comes back, "
        "leave Stable-Fast off (--stable-fast=off) and report it with the output of --doctor."
    )


def out_of_memory_text(session: Session) -> str:
    place = "GPU" if session.device.type == "cuda" else "machine"
    return f"Not enough memory on the {place}: try a smaller size or batch, or close other programs."
