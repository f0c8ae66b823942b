"""Converts between PIL pictures and tensors [N, 3, H, W] in -1..1."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules.core.errors import OutputError
from modules.images.modes import to_rgb


def to_pil(images: Tensor) -> list[Image.Image]:
    """Converts a tensor in -1..1 to 8-bit pictures, rounding to nearest and clipping."""
    if not bool(torch.isfinite(images).all()):
        raise OutputError("The picture holds invalid numbers (NaN); try again with --dtype float32.")
    return [Image.fromarray(array) for array in to_8_bit_pixels(images).cpu().numpy()]


def to_8_bit_pixels(images: Tensor) -> Tensor:
    """Converts a tensor in -1..1 to pixels [N, H, W, 3] of bytes on its device, rounding to nearest and clipping."""
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_tensor(image: Image.Image) -> Tensor:
    """Converts any picture to [1, 3, H, W] in -1..1, rotated upright as per EXIF, with transparency over white."""
    array = np.array(to_rgb(image), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).div_(127.5).sub_(1)
