"""Keeps encoded scenes on the device for the diffusion stage to draw its batches from."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.demo_model.training.networks import SCALE, Networks
from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import sample_scenes

PART = 256


@dataclass(frozen=True)
class Pool:
    """Scaled latents [N, 4, h, w] and the facts [N, len(Fact)] of the same scenes."""

    latents: Tensor
    facts: Tensor

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(self.latents), (count,), device=self.latents.device)
        return self.latents[chosen].float(), self.facts[chosen]


@torch.no_grad()
def fill_pool(networks: Networks, size: tuple[int, int], count: int, seconds: float) -> Pool:
    """Encodes at most `count` scenes of `size` pixels (height, width), fewer if the time runs out."""
    device = networks.device
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    vae = copy.deepcopy(networks.vae).to(device=device, dtype=dtype, memory_format=torch.channels_last)
    part = PART if device.type == "cuda" else 32
    latents: list[Tensor] = []
    facts: list[Tensor] = []
    end = time.monotonic() + seconds
    while len(latents) * part < count and (not latents or time.monotonic() < end):
        scenes = sample_scenes(part, device)
        images = render(scenes, size).to(dtype=dtype, memory_format=torch.channels_last)
        latents.append((vae.encode(images).float() * SCALE).half())
        facts.append(scenes.facts)
        if len(latents) % 16 == 0 and device.type == "cuda":
            torch.cuda.synchronize()  # otherwise the clock would time the launches, not the work
    return Pool(torch.cat(latents).contiguous(), torch.cat(facts))
