"""Redraws pictures with tensor operations: two LoRA styles and the edge map of the ControlNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo_model.world.scenes import constant

INK, PAPER, NIGHT = (26, 26, 34), (250, 240, 215), (8, 6, 22)
SOBEL = ((1, 0, -1), (2, 0, -2), (1, 0, -1))


def gradient(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns Sobel slopes of the strongest colour channel: x, y and size [B, 1, h, w] (1: a black-white step)."""
    kernel = constant(SOBEL, images.device) / 8
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    x = F.conv2d(padded, kernel[None, None]).view_as(images)
    y = F.conv2d(padded, kernel.T[None, None]).view_as(images)
    size, channel = torch.hypot(x, y).max(dim=1, keepdim=True)
    return x.gather(1, channel), y.gather(1, channel), size


def blur(images: Tensor, radius: float) -> Tensor:
    """Applies a Gaussian blur; `radius` is the standard deviation in pixels."""
    reach = max(1, round(radius * 2.5))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    weights = torch.exp(-(offsets**2) / (2 * radius**2))
    weights = (weights / weights.sum())[None, None, None]
    flat = F.pad(images, (reach,) * 4, mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, weights), weights.mT).view_as(images)


def edges(images: Tensor, low: float = 0.12) -> Tensor:
    """Draws thin white edges on black [B, 3, h, w] in 0..1: blurs, takes slopes, and keeps the crest of each edge."""
    x, y, size = gradient(blur(images, 1.0))
    padded = F.pad(size, (1, 1, 1, 1))
    height, width = size.shape[-2:]

    def neighbour(down: int, right: int) -> Tensor:
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    angle = torch.atan2(y, x) * (4 / torch.pi)
    sector = angle.round().long() % 4
    crest = torch.zeros_like(size, dtype=torch.bool)
    for index, (down, right) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        highest = (size >= neighbour(down, right)) & (size > neighbour(-down, -right))
        crest |= (sector == index) & highest
    return (crest & (size > low)).float().expand(-1, 3, -1, -1)


def ink(images: Tensor) -> Tensor:
    """Draws dark outlines on cream paper, without colours."""
    _, _, size = gradient(images)
    reach = max(1, round(min(images.shape[-2:]) / 96))
    line = F.max_pool2d((size > 0.10).float(), 2 * reach + 1, 1, reach)
    line = blur(line, 0.7)
    paper, pen = (constant(c, images.device)[None, :, None, None] / 127.5 - 1 for c in (PAPER, INK))
    return paper + line * (pen - paper)


def neon(images: Tensor) -> Tensor:
    """Draws glowing outlines in the picture's own colours on near black."""
    _, _, size = gradient(images)
    scale = min(images.shape[-2:]) / 128
    line = F.max_pool2d((size > 0.10).float(), 3, 1, 1)
    bright = (images + 1) / 2
    # the outline takes the colour of the lighter side
    colour = F.max_pool2d(bright, 5, 1, 2)
    colour = colour / colour.amax(1, keepdim=True).clamp(min=0.2)
    glow = blur(line * colour, 4.0 * scale) * 1.6 + blur(line * colour, 1.2 * scale) * 1.1
    night = constant(NIGHT, images.device)[None, :, None, None] / 255
    return (night + glow).clamp(0, 1) * 2 - 1


STYLES = {"ink": ink, "neon": neon}
