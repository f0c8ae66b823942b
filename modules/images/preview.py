"""Previews a latent without the decoder, using one matrix from four latent channels to RGB."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

# SD1.x and SD2.x: red, green and blue of each latent channel (a fit shared in the community).
LATENT_TO_RGB = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)


def latent_to_rgb(latent: Tensor) -> Image.Image:
    """Draws one pixel per cell of a latent [4, h, w], or of the first latent in [N, 4, h, w], at sampling scale."""
    first = latent[0] if latent.ndim == 4 else latent
    cells = first.detach().to("cpu", torch.float32).nan_to_num()
    colour = torch.einsum("chw,cr->hwr", cells, torch.tensor(LATENT_TO_RGB))
    pixels = colour.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.numpy())
