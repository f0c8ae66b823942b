"""Keeps encoded scenes on the device for the diffusion stage to draw its batches from."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.demo_model.training.networks import SCALE, Networks
from tools.demo_model.world.scenes import Scenes, sample_scenes
from tools.demo_model.world.views import plain_view

PART = 256
View = Callable[[Scenes, tuple[int, int]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Pool:
    """Scaled latents [N, 4, h, w], and the facts [N, len(Fact)] and six sizes [N, 6] of the same pictures."""

    latents: Tensor
    facts: Tensor
    sizes: Tensor

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.randint(0, len(self.latents), (count,), device=self.latents.device)
        return self.latents[chosen].float(), self.facts[chosen], self.sizes[chosen]


@torch.no_grad()
def fill_pool(networks: Networks, size: tuple[int, int], count: int, seconds: float, view: View = plain_view) -> Pool:
    """Encodes at most `count` scenes of `size` pixels (height, width), fewer if the time runs out."""
    device = networks.device
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    vae = copy.deepcopy(networks.vae).to(device=device, dtype=dtype, memory_format=torch.channels_last)
    part = PART if device.type == "cuda" else 8
    latents: list[Tensor] = []
    facts: list[Tensor] = []
    told: list[Tensor] = []
    end = time.monotonic() + seconds
    while len(latents) * part < count and (not latents or time.monotonic() < end):
        scenes = sample_scenes(part, device)
        images, sizes = view(scenes, size)
        images = images.to(dtype=dtype, memory_format=torch.channels_last)
        latents.append((vae.encode(images).float() * SCALE).half())
        facts.append(scenes.facts)
        told.append(sizes)
        if len(latents) % 16 == 0 and device.type == "cuda":
            torch.cuda.synchronize()  # otherwise the clock would time the launches, not the work
    return Pool(torch.cat(latents).contiguous(), torch.cat(facts), torch.cat(told))
