"""Previews a latent without the decoder, using one matrix from four latent channels to RGB."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from modules.core.device import fetched

# Red, green and blue of each latent channel, and of a latent of zeros (fits shared in the community).
Fit = tuple[tuple[tuple[float, float, float], ...], tuple[float, float, float]]
SD_FIT: Fit = (
    ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)),
    (0.0, 0.0, 0.0),
)
SDXL_FIT: Fit = (
    ((0.3651, 0.4232, 0.4341), (-0.2533, -0.0042, 0.1068), (0.1076, 0.1111, -0.0362), (-0.3165, -0.2492, -0.2188)),
    (0.1084, -0.0175, -0.0011),
)


def latent_to_rgb(latent: Tensor, family: str) -> Image.Image:
    """Draws one pixel per cell of a latent [4, h, w], or of the first latent in [N, 4, h, w], at sampling scale.

    A GPU must have finished it.
    """
    first = latent[0] if latent.ndim == 4 else latent
    cells = fetched(first.detach()).float().nan_to_num()
    channels, zero = SDXL_FIT if "SDXL" in family else SD_FIT
    colour = torch.einsum("chw,cr->hwr", cells, torch.tensor(channels)) + torch.tensor(zero)
    pixels = colour.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.numpy())
