"""Runs stages 1 and 4: the autoencoder, its latents rotated to resemble SD's, and the decoder's final polish."""

from __future__ import annotations

import copy
import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.models.vae import AutoencoderKL
from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.graphed_step import GraphedStep
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import NATIVE_SIZE, SCALE, Networks, batch_size, initialise_vae, working_dtype
from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import sample_scenes
from tools.demo_model.world.styles import STYLES

logger = logging.getLogger(__name__)

CROP = 64
# The linear preview of SD1.x programs. Rows: latent channels; columns: red, green, blue.
PREVIEW = ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177))


def abstract_pictures(count: int, size: int, device: torch.device) -> Tensor:
    """Draws waves and rotated boxes in any colour, so that the autoencoder also handles pictures unlike the world."""
    grid = torch.linspace(-1, 1, size, device=device)
    x, y = grid[None, None, :], grid[None, :, None]
    u = torch.rand(count, 64, device=device)
    images = u[:, :3, None, None].expand(-1, -1, size, size)
    for index in range(4):
        p = u[:, 4 + 6 * index : 10 + 6 * index, None, None]
        wave = torch.sin((p[:, 0] - 0.5) * 14 * x + (p[:, 1] - 0.5) * 14 * y + p[:, 2] * 6)
        images = images + wave[:, None] * (p[:, 3:6] - 0.5) * 0.6
    for index in range(4):
        p = u[:, 28 + 8 * index : 36 + 8 * index, None, None]
        angle = p[:, 2] * 3.14
        across = (x - p[:, 0] * 2 + 1) * angle.cos() + (y - p[:, 1] * 2 + 1) * angle.sin()
        along = (y - p[:, 1] * 2 + 1) * angle.cos() - (x - p[:, 0] * 2 + 1) * angle.sin()
        inside = torch.maximum(across.abs() - p[:, 3] * 0.5, along.abs() - p[:, 4] * 0.5)
        cover = (0.5 - inside * size / 2).clamp(0, 1)[:, None]
        images = images + cover * (p[:, 5:8] - images)
    return images.clamp(0, 1) * 2 - 1


def training_pictures(count: int, device: torch.device, *, crop: int, zoom: float = 1.0) -> Tensor:
    """Draws a batch: mostly the world, an eighth abstract, an eighth in each other style."""
    eighth = max(count // 8, 1)
    size = round(NATIVE_SIZE * zoom / 8) * 8
    images = render(sample_scenes(count - eighth, device, landscape_share=0.35), (size, size), crop=crop)
    mixed = images[torch.randint(0, len(images), (2 * eighth,), device=device)]
    styled = [style(half) for style, half in zip(STYLES.values(), mixed.split(eighth), strict=True)]
    kept = images[torch.rand(len(images), device=device).argsort()[: count - 3 * eighth]]
    return torch.cat([kept, *styled, abstract_pictures(eighth, crop or size, device)])


def picture_loss(output: Tensor, target: Tensor) -> Tensor:
    """Sums the errors of colours and of differences between neighbours; the second term keeps edges sharp."""
    error = output.float() - target
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * (across + down) + 0.5 * error.square().mean()


def train_autoencoder(networks: Networks, budget: Budget, state: StateFile) -> None:
    vae, device = networks.vae, networks.device
    saved = state.load(device)
    if saved is None:
        initialise_vae(vae, training_pictures(256, device, crop=CROP))
    vae.to(memory_format=torch.channels_last)
    trainer = Trainer(list(vae.parameters()), rate=1.5e-3, dtype=working_dtype(device), decay=1e-4)

    def step(images: Tensor) -> Tensor:
        latents = vae.encode(images.to(working_dtype(device))).float()
        noise = torch.randn_like(latents) * (0.05 * latents.detach().std())
        output = vae.decode((latents + noise).to(working_dtype(device)))
        loss = picture_loss(output, images) + 5e-5 * latents.square().mean()
        loss.backward()
        trainer.update()
        return F.mse_loss(output.detach().float(), images)

    small, full = GraphedStep(step, trainer.clear), GraphedStep(step, trainer.clear)

    def batch(fraction: float, count: int) -> Tensor:
        if fraction < 0.5:
            zoom = (1.0, 1.0, 1.75, 0.75)[count % 4]
            return small(_picture_batch(device, batch_size(device, 256), crop=CROP, zoom=zoom))
        return full(_picture_batch(device, batch_size(device, 128), crop=0))

    run_stage("autoencoder", trainer, budget, state, saved, batch, describe=_psnr)
    match_sd_latents(networks)


def _picture_batch(device: torch.device, count: int, *, crop: int, zoom: float = 1.0) -> Tensor:
    return training_pictures(count, device, crop=crop, zoom=zoom).to(memory_format=torch.channels_last)


def _psnr(mse: float) -> str:
    return f"PSNR {10 * math.log10(4 / max(mse, 1e-9)):.2f} dB"


@torch.no_grad()
def match_sd_latents(networks: Networks) -> None:
    """Whitens the latents, rotates them towards SD's preview matrix, and folds this and the scale into 1x1 layers."""
    device = networks.device
    images = render(sample_scenes(batch_size(device, 2048), device), (NATIVE_SIZE, NATIVE_SIZE))
    latents = torch.cat([networks.vae.encode(part) for part in images.split(128)])
    rows = latents.permute(0, 2, 3, 1).flatten(0, 2).double()
    colours = F.avg_pool2d(images, 8).permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    whiten = (vectors / values.sqrt()) @ vectors.T
    white = (rows - mean) @ whiten.T
    colour_of = white.T @ (colours - colours.mean(0)) / len(rows)  # least squares, since the rows are whitened
    preview = torch.tensor(PREVIEW, device=device, dtype=torch.float64)
    left, _, right = torch.linalg.svd(preview @ colour_of.T)
    _fold(networks.vae, (left @ right) @ whiten, mean)
    seen = networks.vae.encode(images[:128]).permute(0, 2, 3, 1).flatten(0, 2) * SCALE @ preview.float()
    match = [torch.corrcoef(torch.stack([seen[:, i], colours[: len(seen), i].float()]))[0, 1].item() for i in range(3)]
    logger.info("SD preview matrix against true colours, correlation: %s", [round(m, 3) for m in match])


def _fold(vae: AutoencoderKL, turn: Tensor, mean: Tensor) -> None:
    """Applies latent -> turn (latent - mean) / SCALE after the encoder, and the inverse before the decoder."""
    out, back = vae.quant_conv, vae.post_quant_conv
    weight, bias = out.weight[:4, :, 0, 0].double(), out.bias[:4].double()
    out.weight[:4, :, 0, 0] = (turn @ weight / SCALE).to(out.weight.dtype)
    out.bias[:4] = (turn @ (bias - mean) / SCALE).to(out.bias.dtype)
    out.weight[4:] = 0
    out.bias[4:] = 2 * math.log(0.03 / SCALE)
    inner, offset = back.weight[:, :, 0, 0].double(), back.bias.double()
    back.weight[:, :, 0, 0] = (inner @ torch.linalg.inv(turn) * SCALE).to(back.weight.dtype)
    back.bias.copy_((offset + inner @ mean).to(back.bias.dtype))


def polish_decoder(networks: Networks, budget: Budget, state: StateFile) -> None:
    """Trains only the decoder, on slightly wrong latents like those of sampling, to sharpen edges."""
    vae, device = networks.vae, networks.device
    dtype = working_dtype(device)
    vae.to(memory_format=torch.channels_last)
    saved = state.load(device)
    frozen = copy.deepcopy(vae).to(dtype)
    trainer = Trainer(
        [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()], rate=6e-4, dtype=dtype, decay=1e-4
    )

    def step(images: Tensor) -> Tensor:
        with torch.no_grad():
            latents = frozen.encode(images.to(dtype)).float()
            spread = torch.rand(len(images), 1, 1, 1, device=device) * 0.12
            latents = latents + torch.randn_like(latents) * spread / SCALE
        output = vae.decode(latents.to(dtype))
        picture_loss(output, images).backward()
        trainer.update()
        return F.mse_loss(output.detach().float(), images)

    graphed = GraphedStep(step, trainer.clear)

    def batch(_fraction: float, _step: int) -> Tensor:
        return graphed(_picture_batch(device, batch_size(device, 128), crop=0))

    run_stage("polish", trainer, budget, state, saved, batch, describe=_psnr)
