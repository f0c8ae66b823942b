"""Decodes the latents of a batch and describes its pictures. Those of several requests come when the GPU is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from modules.core.errors import MakeAgain, ModelFileError
from modules.gallery.picture import Picture, PictureInFlight
from modules.generation.image_to_image import Start
from modules.generation.job import Job
from modules.generation.metadata.write import to_parameters
from modules.generation.options import HiresOptions, ResolvedOptions
from modules.generation.passes.batch import Batch, Share
from modules.images.convert import to_pil
from modules.images.in_flight import PixelsInFlight
from modules.version import VERSION

# The number of a row in a batch -> its picture, which the GPU may still compute.
Develop = Callable[[int], Image.Image | PixelsInFlight]
MadeFor = tuple[Share, Picture | PictureInFlight]  # the picture of a batch, and the share that asked for it


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of picture `index` of a request before its pixels are there."""

    options: ResolvedOptions
    index: int
    parameters: str
    start: Start | None

    def picture(self, image: Image.Image) -> Picture:
        return Picture(
            image=self.start.put_back(image) if self.start else image,
            seed=self.options.seed + self.index,
            request_seed=self.options.seed,
            parameters=self.parameters,
        )

    def picture_soon(self, pixels: PixelsInFlight) -> PictureInFlight:
        def fetched() -> Picture:
            try:
                image = pixels.wait()
            except RuntimeError as error:  # a fault of the GPU
                raise MakeAgain("The picture could not be fetched from the GPU.") from error
            if image is None:
                raise MakeAgain("The picture contains values that are not numbers (NaN).")
            return self.picture(image)

        seed = self.options.seed
        return PictureInFlight(fetched=fetched, seed=seed + self.index, request_seed=seed)


def decoded_pictures(batch: Batch, hires: HiresOptions | None, latents: Tensor) -> Iterator[MadeFor]:
    """Decodes scaled latents [N, C, h, w] (see `finished_pictures`).

    A picture in flight is not waited for, so that the GPU gets its next work before this is done. If it proves to be
    unusable, its request is made again, alone. A single request waits for its first picture, which may show that the
    autoencoder needs a wider type.
    """
    job = batch.job
    in_flight = batch.in_flight and (len(batch.shares) > 1 or job.networks.has_decoded)
    height, width = (side * job.model.spec.vae.downscale for side in latents.shape[-2:])

    def develop(row: int) -> Image.Image | PixelsInFlight:
        latent = latents[row][None]
        return job.decode_soon(latent) if in_flight else to_pil(job.decode(latent))[0]

    yield from finished_pictures(batch, hires, develop, job.masked_start_at(width, height))


def finished_pictures(
    batch: Batch, hires: HiresOptions | None, develop: Develop, start: Start | None
) -> Iterator[MadeFor]:
    """Develops one picture at a time, so the first one is ready early. `hires` goes into the metadata.

    What `start` says is put back into each picture.
    """
    told = facts(batch.job)
    for place, (share, rows) in enumerate(zip(batch.shares, batch.rows, strict=True)):
        options = share.job.options if hires else of_first_pass(share.job.options)
        numbers = zip(share.indices, range(rows.start, rows.stop), strict=True)
        kept = [pair for pair in numbers if options.only in (None, pair[0])]
        for done, (index, row) in enumerate(kept, start=1):
            batch.check()
            if not batch.wants(place):
                break
            if done == 1:
                share.outside.begin("decoding", len(kept))
            parameters = to_parameters(options, index, told, share.job.hashes)
            described = Description(options=options, index=index, parameters=parameters, start=start)
            with torch.inference_mode():
                developed = develop(row)
            in_flight = isinstance(developed, PixelsInFlight)
            picture = described.picture_soon(developed) if in_flight else described.picture(developed)
            share.outside.decoded(done, len(kept))
            yield share, picture


def of_first_pass(options: ResolvedOptions) -> ResolvedOptions:
    """Returns the request that makes the first pass's picture, in which a refiner has no part before a second pass."""
    if options.hires is None:
        return options
    return replace(options, hires=None, refiner=None, refiner_start=None)


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
    path = job.model.path
    try:
        named = job.session.folders.find("checkpoints", job.model.name)
    except ModelFileError:
        named = None
    is_found = named is not None and (named == path or named.resolve() == path.resolve())  # `resolve` takes long
    return {} if is_found else {"Model path": path.resolve().name}
