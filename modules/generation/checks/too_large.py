"""Refuses pictures that are too large for this CPU: for the memory that is free, or for a day of work.

The memory is a lower bound. So is the time for a CPU whose cores are no faster than the speeds assumed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from modules.core.device import free_memory
from modules.core.errors import OptionsError
from modules.generation.options import ResolvedOptions
from modules.generation.pass_settings import PassSettings, noise_of, settings_of_passes
from modules.loader.detection.model_spec import ModelSpec
from modules.models.configs import UNetConfig

GIB = 2**30
DAY = 24 * 3600
# Multiplications and additions in a second of one core: assumed, about what the widest vectors do at 3 GHz.
BEST_SPEED = {torch.float32: 2e11}
BEST_SPEED_OF_SHORT = 2e12
REMEDY = "choose a smaller size, and enlarge the result in tiles (--tiled-upscale)"


def check_fits_cpu(options: ResolvedOptions, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
    """Raises OptionsError, with the cause and a remedy, for a picture that the CPU cannot make, if it is to."""
    if device.type != "cpu":
        return
    for (width, height), settings in zip(sizes_of_passes(options), settings_of_passes(options), strict=False):
        rows = options.batch * (2 if settings.cfg != 1 else 1)
        cells = (width // spec.vae.downscale) * (height // spec.vae.downscale)
        needed = rows * least_values(spec.unet, cells) * dtype.itemsize
        free = free_memory(device)
        if needed > free:
            raise OptionsError(
                f"A picture of {width}x{height} needs at least {needed / GIB:.1f} GiB of memory on this CPU, and "
                f"{free / GIB:.1f} GiB are free: {REMEDY}."
            )
        seconds = rows * steps_of(settings, spec) * least_operations(spec.unet, cells) / best_speed(dtype)
        if seconds > DAY:
            raise OptionsError(
                f"A picture of {width}x{height} would take this CPU more than {seconds / 3600:.0f} hours, even at its "
                f"best: {REMEDY}."
            )


def sizes_of_passes(options: ResolvedOptions) -> Iterator[tuple[int, int]]:
    """Yields the width and height at which each pass samples; none if it does so in tiles."""
    if options.tiled is None:
        yield options.width, options.height
        if options.hires is not None:
            yield options.hires.target(options.width, options.height)


def steps_of(settings: PassSettings, spec: ModelSpec) -> int:
    return max(0, len(settings.sigmas(noise_of(spec))) - 1)


def best_speed(dtype: torch.dtype) -> float:
    """Returns the operations in a second that all cores together are assumed to do at best."""
    return (os.cpu_count() or 1) * BEST_SPEED.get(dtype, BEST_SPEED_OF_SHORT)


def least_values(unet: UNetConfig, cells: int) -> int:
    """Returns how many values one row of the UNet surely holds at once, for a latent of so many cells.

    In a feed-forward these are the projection to 8 times the channels, its activated half and the product. Without
    attention at a level, a residual block holds its joined input, this normalised, and its output.
    """
    levels = enumerate(zip(unet.channels, unet.depths, strict=True))
    return max((16 if depth else 5) * width * (cells // 4**level) for level, (width, depth) in levels)


def least_operations(unet: UNetConfig, cells: int) -> float:
    """Returns the multiplications and additions of self-attention alone, for one row and one evaluation."""
    blocks = [unet.res_blocks * depth + sum(unet.decoder_depths(level)) for level, depth in enumerate(unet.depths)]
    levels = enumerate(zip(unet.channels, blocks, strict=True))
    return float(sum(4 * (cells // 4**level) ** 2 * width * count for level, (width, count) in levels))
