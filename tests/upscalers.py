"""Random ESRGAN weights under the names used in most upscaler files."""

from __future__ import annotations

import torch
from torch import Tensor


def esrgan_tensors(
    features: int = 8, growth: int = 4, blocks: int = 1, *, doublings: int = 2, shuffle: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    """Makes weights that roughly keep the magnitude of signals; colours are around middle grey."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, bias: float = 0.0) -> None:
        spread = (2.0 / (9 * inputs)) ** 0.5
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * spread
        tensors[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.05 + bias

    conv("model.0", 3 * shuffle**2, features)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for index in range(1, 5):
                conv(f"model.1.sub.{block}.RDB{dense}.conv{index}.0", features + (index - 1) * growth, growth)
            conv(f"model.1.sub.{block}.RDB{dense}.conv5.0", features + 4 * growth, features)
    conv(f"model.1.sub.{blocks}", features, features)
    place = 3
    for _ in range(doublings):
        conv(f"model.{place}", features, features)
        place += 3
    conv(f"model.{place - 1}", features, features)
    conv(f"model.{place + 1}", features, 3, bias=0.5)
    return tensors
