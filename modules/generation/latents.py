"""Converts pictures to latents and back: in float32 after an overflow, in tiles when memory is short."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from modules.core.device import free_memory
from modules.generation.checks.not_finite import NotFinite
from modules.models.vae import AutoencoderKL

log = logging.getLogger(__name__)

TILE = 64  # latent cells along one side of a tile
OVERLAP = 16
BYTES_PER_CELL = 2178 * 64  # per latent cell and byte of the dtype, at 128 base channels (measured by ComfyUI)


Half = Callable[[Tensor], Tensor]  # the network's own decode or encode, or a compiled version


def decode_latents(vae: AutoencoderKL, latents: Tensor, run: Half | None = None) -> Tensor:
    """Converts scaled latents [N, C, h, w] to float32 pictures [N, 3, H, W] in -1..1, on the autoencoder's device.

    Pictures stay on the device until converted to bytes: the rest takes microseconds on a GPU, 0.1 s on a CPU.
    `run` replaces `vae.decode`. Raises NotFinite if the picture is not finite even in float32.
    """
    pictures = [_finite(vae, _decode_one, latent[None], run or vae.decode) for latent in latents]
    return torch.cat(pictures).clamp(-1, 1)


def encode_pictures(vae: AutoencoderKL, images: Tensor, run: Half | None = None) -> Tensor:
    """Converts pictures [N, 3, H, W] in -1..1 to scaled latents [N, C, H/8, W/8] float32 on the CPU."""
    return torch.cat([_finite(vae, _encode_one, image[None], run or vae.encode) for image in images])


def _finite(vae: AutoencoderKL, work: Callable[[AutoencoderKL, Tensor, Half], Tensor], x: Tensor, run: Half) -> Tensor:
    """Runs `work`; if half precision overflows (as SD VAEs do in float16), runs it again in float32, uncompiled."""
    out = work(vae, x, run)
    if torch.isfinite(out).all():
        return out
    if next(vae.parameters()).dtype != torch.float32 and torch.isfinite(x).all():
        log.warning("The VAE overflowed in half precision; this picture is computed again in float32.")
        exact = copy.deepcopy(vae).float()
        out = work(exact, x, exact.decode if work is _decode_one else exact.encode)
        if torch.isfinite(out).all():
            return out
    raise NotFinite("The result contains values that are not numbers (NaN), so no picture was written.")


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
    needed = BYTES_PER_CELL * cells * x.element_size() * vae.config.channels[0] / 128
    scale, tile = (1 / factor, TILE * factor) if shrink else (factor, TILE)
    overlap = OVERLAP * tile // TILE
    if needed < 0.8 * free_memory(x.device):
        try:
            return run(x)
        except torch.OutOfMemoryError:
            if x.device.type == "cuda":
                torch.cuda.empty_cache()
    log.warning("Not enough memory for the whole picture at once; the VAE works in tiles.")
    return tiled(run, x, channels=channels, scale=scale, tile=tile, overlap=overlap).to(x.device)


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
