"""Runs a whole generation: takes one request and yields finished pictures one by one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor

from modules.core.device import lacks_memory, made_current, raise_if_broken, release_memory
from modules.core.errors import DeviceError, OutOfMemoryError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture, PictureInFlight
from modules.generation.job import Job, prepare_jobs
from modules.generation.options import GenerationOptions
from modules.generation.pass_settings import first_settings
from modules.generation.passes.batch import Batch, Share
from modules.generation.passes.each_part import part_by_part
from modules.generation.passes.finish import MadeFor, decoded_pictures, finished_pictures
from modules.generation.passes.hires_fix import second_pass
from modules.generation.passes.sampling_pass import sample_pass
from modules.generation.passes.tiled import sample_tiles
from modules.generation.progress import OnProgress, Outside
from modules.generation.session import Session
from modules.generation.wording.spelled_out import spelled_out


def generate(
    options: GenerationOptions,
    session: Session,
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Picture]:
    """Yields each picture as soon as it is finished. If the prompts have variants, each picture is made alone.

    Raises a LightDiffusionError with a readable message; Cancelled once `cancel` is set.
    """
    for made in generate_soon(options, session, on_progress=on_progress, cancel=cancel, in_flight=False):
        yield made.fetched()


def generate_soon(
    options: GenerationOptions,
    session: Session,
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
    in_flight: bool = True,
) -> Iterator[Picture | PictureInFlight]:
    """Works like `generate`, but does not wait for pictures `in_flight`, which the GPU may still compute.

    Such a picture may prove to be unusable (MakeAgain): then call `generate`, which repairs what it can.
    """
    seed = options.seed
    with made_current(session.device), device_errors_for_people(session):
        requests = spelled_out(options, session.folders)
        for done, request in enumerate(requests):
            seed = request.seed if seed is None else seed  # of the first picture, even if that is skipped
            (job,) = jobs_with_room([request], session)
            for share in shares_of(job, on_progress, cancel, (done, len(requests))):
                batch = Batch(job=job, shares=(share,), in_flight=in_flight)
                for _, made in batch_with_room(batch):
                    yield made if seed is None else made.of_request(seed)
                job = batch.job


def shares_of(
    job: Job, on_progress: OnProgress | None, cancel: CancelToken | None, place: tuple[int, int] = (0, 1)
) -> list[Share]:
    """Returns the batches of one request by itself.

    `place`: how many requests like this are done, and how many there are. If there are several, each has one batch.
    """
    done, requests = place
    batches = job.batches()
    return [
        Share(
            job=job,
            indices=indices,
            outside=Outside(
                on_progress=on_progress,
                cancel=cancel,
                batch=number,
                batches=max(len(batches), requests),
                family=job.model.spec.family,
            ),
        )
        for number, indices in enumerate(batches, start=done + 1)
    ]


def jobs_with_room(requests: Sequence[GenerationOptions], session: Session) -> list[Job]:
    """Prepares jobs (see `prepare_jobs`); makes room on the GPU and tries again if memory runs out."""
    try:
        return prepare_jobs(requests, session)
    except RuntimeError as error:
        if not lacks_memory(error) or not session.make_room():
            raise
    return prepare_jobs(requests, session)  # not in the handler: the error keeps tensors alive


def batch_with_room(batch: Batch) -> Iterator[MadeFor]:
    """Makes one batch; makes room on the GPU and goes on if memory runs out."""
    done = 0
    try:
        for made in make_batch(batch):
            yield made
            done += 1
        return
    except RuntimeError as error:
        if not lacks_memory(error) or not batch.make_room():
            raise
    yield from islice(make_batch(batch), done, None)  # not in the handler: the error keeps tensors alive


def make_batch(batch: Batch) -> Iterator[MadeFor]:
    """Makes the pictures of one batch: part by part if requested, or else all at once.

    Once the batch is skipped, it ends without the rest of its pictures.
    """
    init = batch.job.options.init
    with batch.skippable():
        yield from part_by_part(batch, make_passes) if init and init.each_part else make_passes(batch)


def make_passes(batch: Batch) -> Iterator[MadeFor]:
    """Makes the pictures of one batch at once: first pass, or that of each tile; second pass if requested; decoding."""
    options, source = batch.job.options, batch.job.source
    hires, tiled = options.hires, options.tiled
    if tiled is not None and source is not None:
        yield from finished_pictures(batch, None, sample_tiles(batch, source, tiled).develop, None)
        return
    latents = first_pass(batch, options.width, options.height)
    if hires is None or hires.keep_first_pass:
        yield from decoded_pictures(batch, None, latents)
    if hires is not None:
        yield from decoded_pictures(batch, hires, second_pass(batch, hires, latents))


def first_pass(batch: Batch, width: int, height: int) -> Tensor:
    """Returns clean latents [N, C, h, w] of one batch."""
    job, seeds = batch.job, batch.seeds
    start = job.start_at(width, height)
    if start is not None:
        return sample_pass(batch, first_settings(job.options), start.latents(seeds), start)
    vae = job.model.spec.vae
    empty = torch.zeros(len(seeds), vae.latent_channels, height // vae.downscale, width // vae.downscale)
    return sample_pass(batch, first_settings(job.options), empty)


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
    refiner = ", leave out the refiner" if session.refines else ""
    return f"Not enough memory on the {place}: try a smaller size or batch{refiner}, or close other programs."
