"""Repaints the separate parts of a mask one after the other, each enlarged to the request's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from modules.core.progress import Skipped
from modules.generation.image_to_image import OpenedInit
from modules.generation.passes.batch import Batch, Share
from modules.generation.passes.finish import MadeFor
from modules.images.masks.parts import separate_parts


def part_by_part(batch: Batch, make: Callable[[Batch], Iterator[MadeFor]]) -> Iterator[MadeFor]:
    """Makes the batch's pictures one by one. `make` repaints one part; the next part starts from its picture.

    A skip leaves out the picture in the works.
    """
    for share in batch.shares:
        for index in share.indices:
            if share.job.options.only in (None, index):
                with suppress(Skipped):
                    yield from _picture(batch, replace(share, indices=range(index, index + 1)), make)


def _picture(batch: Batch, share: Share, make: Callable[[Batch], Iterator[MadeFor]]) -> Iterator[MadeFor]:
    options, source = batch.job.options, batch.job.source
    parts = parts_of(source) if source else []
    made: list[MadeFor] = []
    for number, part in enumerate(parts):
        start = made[0][1].fetched().image if made else part.image
        outside = replace(
            share.outside,
            batch=(share.outside.batch - 1) * len(parts) + number + 1,
            batches=share.outside.batches * len(parts),
        )
        one = replace(part, image=start).with_region(options.width, options.height)
        alone = Batch(job=replace(batch.job, source=one), shares=(replace(share, outside=outside),))
        made = list(make(alone))
    yield from made


def parts_of(source: OpenedInit) -> list[OpenedInit]:
    """Returns the picture once for each separate part of its mask; with the whole mask if it is black."""
    if source.mask is None:
        return [source]
    masks = separate_parts(source.mask) or [source.mask]
    return [replace(source, mask=mask) for mask in masks]
