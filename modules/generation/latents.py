"""Converts pictures to latents and back: in a wider type after an overflow, in tiles when memory is short."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from modules.core.device import free_memory, has_bfloat16, release_memory
from modules.generation.checks.not_finite import NotFinite
from modules.models.vae import AutoencoderKL, working_bytes

log = logging.getLogger(__name__)

TILES = (64, 32)  # latent cells along one side of a tile; the smaller one if the larger one needs too much memory
SPARE = 0.8  # the share of the free memory that one tile, or the whole picture, may take

Half = Callable[[Tensor], Tensor]  # the network's own decode or encode, or a compiled version


def decode_latents(vae: AutoencoderKL, latents: Tensor, run: Half | None = None) -> Tensor:
    """Converts scaled latents [N, C, h, w] to float32 pictures [N, 3, H, W] in -1..1, on the autoencoder's device.

    Pictures stay on the device until converted to bytes: the rest takes microseconds on a GPU, 0.1 s on a CPU.
    `run` replaces `vae.decode`. A VAE that overflows in float16 is converted for good: to bfloat16 if the GPU has it,
    else to float32. Raises NotFinite if the picture is not finite even in float32.
    """
    pictures = [_finite(vae, _decode_one, latent[None], run or vae.decode) for latent in latents]
    return torch.cat(pictures).clamp(-1, 1)


def decode_unchecked(vae: AutoencoderKL, latent: Tensor, run: Half | None = None) -> Tensor:
    """Works like `decode_latents` for one latent [1, C, h, w], but does not wait for the device.

    The picture [1, 3, H, W] is not clipped, and may contain values that are not finite: the caller checks it later.
    """
    return _decode_one(vae, latent, run or vae.decode)


def encode_pictures(vae: AutoencoderKL, images: Tensor, run: Half | None = None) -> Tensor:
    """Converts pictures [N, 3, H, W] in -1..1 to scaled latents [N, C, H/8, W/8] float32 on the CPU."""
    return torch.cat([_finite(vae, _encode_one, image[None], run or vae.encode) for image in images])


def _finite(vae: AutoencoderKL, work: Callable[[AutoencoderKL, Tensor, Half], Tensor], x: Tensor, run: Half) -> Tensor:
    """Runs `work`. While the VAE overflows (as SDXL's does in float16), converts it to a wider type and tries again.

    A compiled `run` notices that the weights moved and starts over; the graph of the narrower type is freed.
    """
    while True:
        out = work(vae, x, run)
        if torch.isfinite(out).all():
            return out
        wider = _wider(vae, x)
        if wider is None:
            raise NotFinite("The result contains values that are not numbers (NaN), so no picture was written.")
        log.warning("The VAE overflowed in %s; it computes in %s from now on.", *map(_short, (_dtype(vae), wider)))
        vae.to(wider)


def _wider(vae: AutoencoderKL, x: Tensor) -> torch.dtype | None:
    """Returns the type to try after an overflow; None if it was none: the input or a weight is not finite."""
    dtype = _dtype(vae)
    if dtype == torch.float32 or not all(bool(torch.isfinite(tensor).all()) for tensor in (x, *vae.parameters())):
        return None
    return torch.bfloat16 if dtype == torch.float16 and has_bfloat16(x.device) else torch.float32


def _dtype(vae: AutoencoderKL) -> torch.dtype:
    return next(vae.parameters()).dtype


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _decode_one(vae: AutoencoderKL, latent: Tensor, run: Half) -> Tensor:
    parameter = next(vae.parameters())
    z = vae.unscale(latent.float()).to(parameter)
    return _whole_or_tiled(vae, z, run, vae.config.downscale, 3).float()


def _encode_one(vae: AutoencoderKL, image: Tensor, run: Half) -> Tensor:
    x = image.to(next(vae.parameters()))
    out = _whole_or_tiled(vae, x, run, vae.config.downscale, vae.config.latent_channels, shrink=True)
    return vae.scale(out.float().cpu())


def _whole_or_tiled(
    vae: AutoencoderKL, x: Tensor, run: Half, factor: int, channels: int, *, shrink: bool = False
) -> Tensor:
    cells = x.shape[-1] * x.shape[-2] // (factor * factor if shrink else 1)
    scale, per_cell = (1 / factor, factor) if shrink else (factor, 1)

    def attempt(tile: int | None) -> Tensor:
        if tile is None:
            return run(x)
        log.warning("Not enough memory for the whole picture at once; the VAE works in tiles.")
        side, overlap = tile * per_cell, tile // 4 * per_cell
        return tiled(run, x, channels=channels, scale=scale, tile=side, overlap=overlap).to(x.device)

    *first, last = tile_sizes(cells, working_bytes(vae.config, 1, x.dtype), free_memory(x.device))
    for tile in first:
        with suppress(torch.OutOfMemoryError):
            return attempt(tile)
        release_memory(x.device)
    return attempt(last)


def tile_sizes(cells: int, bytes_per_cell: float, free: int) -> list[int | None]:
    """Returns what to try in turn: the whole picture (None), then tiles of these sides in latent cells.

    Sizes that would take more than `SPARE` of the `free` bytes are left out, except the smallest tile.
    """
    needed = {None: cells * bytes_per_cell} | {tile: tile * tile * bytes_per_cell for tile in TILES}
    return [tile for tile, size in needed.items() if size < SPARE * free or tile == TILES[-1]]


def tiled(
    run: Callable[[Tensor], Tensor], x: Tensor, *, channels: int, scale: float, tile: int, overlap: int
) -> Tensor:
    """Applies `run` to overlapping square tiles of x [N, C, h, w] and blends them: [N, channels, h*scale, w*scale].

    `tile` and `overlap` count cells of x; `run` must change the size by exactly `scale`.
    """
    batch, _, height, width = x.shape
    out = torch.zeros(batch, channels, round(height * scale), round(width * scale), dtype=torch.float32)
    weight = torch.zeros(1, 1, *out.shape[-2:])
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            piece = run(x[:, :, top : top + tile, left : left + tile]).float().cpu()
            mask = _feather(piece.shape[-2], piece.shape[-1], max(1, round(overlap * scale)))
            y, z = round(top * scale), round(left * scale)
            out[:, :, y : y + piece.shape[-2], z : z + piece.shape[-1]] += piece * mask
            weight[:, :, y : y + piece.shape[-2], z : z + piece.shape[-1]] += mask
    return out / weight


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Returns where the tiles along one side begin; the last tile ends at the edge."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _feather(height: int, width: int, overlap: int) -> Tensor:
    """Weights that rise linearly from the tile's border over `overlap` cells."""

    def ramp(length: int) -> Tensor:
        position = torch.arange(length, dtype=torch.float32)
        return torch.minimum(position + 1, length - position).clamp(max=overlap) / overlap

    return ramp(height)[:, None] * ramp(width)[None, :]
