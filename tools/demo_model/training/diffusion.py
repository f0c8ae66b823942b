"""Runs stage 3: UNet and text encoder learn together to predict noise, at growing and finally mixed sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tools.demo_model.training.loop.budget import Budget
from tools.demo_model.training.loop.graphed_step import GraphedStep
from tools.demo_model.training.loop.run_stage import run_stage
from tools.demo_model.training.loop.saved_state import StateFile
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.networks import Networks, alphas_cumprod, batch_size, working_dtype
from tools.demo_model.training.pools import Pool

Size = tuple[int, int]  # height, width in pixels
COARSE, NATIVE = (64, 64), (128, 128)
OTHERS: tuple[Size, ...] = ((128, 192), (192, 128), (192, 192), (256, 256))
COARSE_UNTIL, NATIVE_UNTIL = 0.15, 0.80
BATCH = {COARSE: 1024, NATIVE: 512, (128, 192): 320, (192, 128): 320, (192, 192): 224, (256, 256): 128}
# used after NATIVE_UNTIL; the native size keeps half of the steps
MIXED: tuple[Size, ...] = (NATIVE, (128, 192), NATIVE, (192, 192), NATIVE, (192, 128), NATIVE, (256, 256))


def size_for(fraction: float, step: int) -> Size:
    if fraction < COARSE_UNTIL:
        return COARSE
    return NATIVE if fraction < NATIVE_UNTIL else MIXED[step % len(MIXED)]


def stratified_timesteps(count: int, device: torch.device) -> Tensor:
    """Draws one timestep from each of `count` equal slices of 0..999, in random order."""
    order = torch.rand(count, device=device).argsort().float()
    return ((order + torch.rand(count, device=device)) * (1000 / count)).long().clamp(max=999)


class NoiseLoss:
    """Returns the weighted squared error of the predicted noise, with more weight on steps that decide the layout."""

    def __init__(self, device: torch.device) -> None:
        products = alphas_cumprod(device)
        self.signal, self.noise = products.sqrt(), (1 - products).sqrt()
        weight = (self.noise / self.signal).clamp(0.15, 5.0)
        self._weight = weight / weight.mean()

    def __call__(self, predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, timesteps: Tensor) -> Tensor:
        noise = torch.randn_like(latents)
        noisy = self._rows(self.signal, timesteps) * latents + self._rows(self.noise, timesteps) * noise
        error = (predict(noisy, timesteps.float()).float() - noise).square().mean((1, 2, 3))
        return (error * self._weight[timesteps]).mean()

    @staticmethod
    def _rows(table: Tensor, timesteps: Tensor) -> Tensor:
        return table[timesteps][:, None, None, None]


def conditioned_loss(
    networks: Networks, noise_loss: NoiseLoss, latents: Tensor, ids: Tensor, sizes: Tensor, timesteps: Tensor
) -> Tensor:
    """Returns the noise loss of pictures with captions [B, 77] of compact ids and with six sizes [B, 6]."""
    condition = networks.condition(ids, sizes)

    def predict(noisy: Tensor, when: Tensor) -> Tensor:
        noisy = noisy.to(dtype=condition["context"].dtype, memory_format=torch.channels_last)
        return networks.unet(noisy, when, **condition)

    return noise_loss(predict, latents, timesteps)


def train_diffusion(
    networks: Networks, pools: dict[Size, Pool], budget: Budget, state: StateFile, every: Callable[[Trainer], None]
) -> None:
    device, dtype = networks.device, working_dtype(networks.device)
    saved = state.load(device)
    networks.unet.to(memory_format=torch.channels_last)
    parameters = [*networks.unet.parameters(), *networks.text.parameters()]
    trainer = Trainer(parameters, rate=1.2e-3, dtype=dtype, coarse=networks.coarse())
    noise_loss = NoiseLoss(device)

    def step(*inputs: Tensor) -> Tensor:
        loss = conditioned_loss(networks, noise_loss, *inputs)
        loss.backward()
        trainer.update()
        return loss.detach()

    memory = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    steps = {size: GraphedStep(step, trainer.clear, memory) for size in pools}

    def batch(fraction: float, index: int) -> Tensor:
        size = size_for(fraction, index)
        count = batch_size(device, BATCH[size])
        latents, facts, sizes = pools[size].draw(count)
        ids = networks.captions.tokens(facts, drop=0.1, only_junk=0.03)
        return steps[size](latents, ids, sizes, stratified_timesteps(count, device))

    run_stage("diffusion", trainer, budget, state, saved, batch, every=lambda _fraction: every(trainer))
