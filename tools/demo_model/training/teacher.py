"""Freezes the finished model as a teacher for LoRA, ControlNet and textual inversion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modules.text.tokenizer import Tokenizer
from tools.demo_model.training.diffusion import NoiseLoss, stratified_timesteps
from tools.demo_model.training.export import BOS_TOKEN, EOS_TOKEN
from tools.demo_model.training.networks import SCALE, batch_size, working_dtype
from tools.demo_model.training.pools import Pool
from tools.demo_model.training.sampling import DemoModel
from tools.demo_model.world.captions import Captions
from tools.demo_model.world.scenes import Scenes, sample_scenes
from tools.demo_model.world.views import plain_view

UNTRAINED_TOKEN = 0  # no caption contains "!", so its row is the shared unknown vector


class Teacher:
    """Frozen networks in the working dtype, the loss, and captions as context."""

    def __init__(self, model: DemoModel) -> None:
        self.model, self.device = model, model.device
        self.dtype = working_dtype(self.device)
        for network in (model.unet, model.text):
            network.to(self.dtype)
        model.unet.to(memory_format=torch.channels_last)
        self.captions = Captions(self.device, Tokenizer().encode)
        ids = [UNTRAINED_TOKEN, BOS_TOKEN, EOS_TOKEN, *self.captions.vocabulary]
        self._real_ids = torch.tensor(ids, device=self.device)
        self._noise_loss = NoiseLoss(self.device)
        self.batch = batch_size(self.device, 256)

    def timesteps(self) -> Tensor:
        return stratified_timesteps(self.batch, self.device)

    @torch.no_grad()
    def context(self, facts: Tensor, *, drop: float = 0.1) -> Tensor:
        ids = self._real_ids[self.captions.tokens(facts, drop=drop)]
        return self.model.text(self.model.text.embed_tokens(ids))

    def loss(
        self,
        latents: Tensor,
        context: Tensor,
        timesteps: Tensor,
        control: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Returns the UNet's noise loss, with a ControlNet's residuals from `control(noisy, when)` if given."""

        def predict(noisy: Tensor, when: Tensor) -> Tensor:
            noisy = noisy.to(dtype=self.dtype, memory_format=torch.channels_last)
            residuals = None if control is None else control(noisy, when)
            return self.model.unet(noisy, when, context, residuals)  # type: ignore[arg-type]

        return self._noise_loss(predict, latents, timesteps)

    @torch.no_grad()
    def pool(
        self, count: int, redraw: Callable[[Tensor], Tensor], scenes: Callable[[int], Scenes] | None = None
    ) -> Pool:
        """Encodes redrawn scenes of the native size in fp32; on a CPU, only one batch."""
        latents, facts, told = [], [], []
        for _ in range(count // self.batch if self.device.type == "cuda" else 1):
            drawn = scenes(self.batch) if scenes else sample_scenes(self.batch, self.device, landscape_share=0.3)
            images, sizes = plain_view(drawn, (128, 128))
            latents.append((self.model.vae.encode(redraw(images)) * SCALE).half())
            facts.append(drawn.facts)
            told.append(sizes)
        return Pool(torch.cat(latents), torch.cat(facts), torch.cat(told))
