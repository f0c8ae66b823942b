"""The tiled upscale: image to image of each tile of an enlarged picture, and the picture blended of these tiles."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from modules.core.device import release_memory
from modules.generation.image_to_image import OpenedInit
from modules.generation.options import TiledOptions
from modules.generation.pass_settings import first_settings
from modules.generation.passes.batch import Batch, Share
from modules.generation.passes.sampling_pass import sample_pass
from modules.images.convert import to_pil, to_tensor
from modules.images.tiles import Tiles
from modules.sampling.noise import CroppedNoise, ImageNoise

TOGETHER = 3  # tiles in a batch on a GPU; a picture enlarged twice usually has 9


@dataclass(frozen=True, kw_only=True)
class SampledTiles:
    """The clean latents [T, N, C, h, w] of the T tiles of N pictures."""

    batch: Batch
    tiles: Tiles
    latents: Tensor

    def develop(self, row: int) -> Image.Image:
        """Decodes and blends the tiles of one picture. Raises Cancelled once every request is cancelled."""
        return self.tiles.blended(self._piece(latent) for latent in self.latents[:, row])

    def _piece(self, latent: Tensor) -> Image.Image:
        self.batch.check()
        return to_pil(self.batch.job.decode(latent[None]))[0]


def sample_tiles(batch: Batch, source: OpenedInit, tiled: TiledOptions) -> SampledTiles:
    """Samples each tile of the enlarged `source`, for each picture of the batch. The tiles have the request's size."""
    job = batch.job
    tiles = Tiles(size=source.image.size, tile=(job.options.width, job.options.height), overlap=tiled.overlap)
    most = together_on(job.device) // len(batch.seeds)
    if most > 1:
        with suppress(torch.OutOfMemoryError):
            return SampledTiles(batch=batch, tiles=tiles, latents=_sampled(batch, source, tiles, most))
        release_memory(job.device)
    return SampledTiles(batch=batch, tiles=tiles, latents=_sampled(batch, source, tiles, 1))


def together_on(device: torch.device) -> int:
    """Returns how many tiles to sample in one batch on this device."""
    return TOGETHER if device.type == "cuda" else 1


@torch.inference_mode()
def _sampled(batch: Batch, source: OpenedInit, tiles: Tiles, together: int) -> Tensor:
    """Returns clean latents [T, N, C, h, w].

    Every batch has `together` tiles, so that one captured graph serves all pictures: the last batch is filled up.
    """
    boxes = tiles.boxes
    groups = [boxes[first : first + together] for first in range(0, len(boxes), together)]
    groups[-1] += [boxes[-1]] * (together - len(groups[-1]))
    sampled = [
        _sample_group(batch, replace(source, tiles=tuple(group)), tiles, (number, len(groups)))
        for number, group in enumerate(groups, start=1)
    ]
    return torch.cat(sampled)[: len(boxes)]


def _sample_group(batch: Batch, source: OpenedInit, tiles: Tiles, place: tuple[int, int]) -> Tensor:
    """Returns clean latents [tiles, N, C, h, w] of the tiles of `source`. Where they overlap, their noise is the same.

    `place` is the number of the group, from 1, and the number of groups.
    """
    job, seeds, boxes = batch.job, batch.seeds, source.tiles
    cell = job.model.spec.vae.downscale
    encoded = job.encode(torch.cat([to_tensor(tiles.cut(source.image, box)) for box in boxes]))
    latents = encoded.repeat_interleave(len(seeds), dim=0)
    width, height = tiles.covered
    whole = ImageNoise(seeds, (latents.shape[1], height // cell, width // cell))
    corners = [(top // cell, left // cell) for left, top, _, _ in boxes]
    noise = CroppedNoise(whole, corners, (latents.shape[2], latents.shape[3]))
    shares = tuple(_share_of(share, tile, place) for tile in range(len(boxes)) for share in batch.shares)
    group = Batch(job=replace(job, source=source), shares=shares)
    return sample_pass(group, first_settings(job.options), latents, noise=noise).unflatten(0, (len(boxes), len(seeds)))


def _share_of(share: Share, tile: int, place: tuple[int, int]) -> Share:
    """Returns the rows of this share for one tile of a group. Only those of the first tile report their progress."""
    outside, (number, groups) = share.outside, place
    outside = replace(
        outside,
        on_progress=None if tile else outside.on_progress,
        batch=(outside.batch - 1) * groups + number,
        batches=outside.batches * groups,
    )
    return replace(share, outside=outside)
