"""Turns a picture into a hint: resizes the picture to the size of the result, and optionally reduces it to edges."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from modules.controlnet.canny import canny_edges
from modules.core.errors import OptionsError

PREPROCESSORS = ("none", "canny")
CANNY_LOW, CANNY_HIGH = 100.0, 200.0


def make_hint(image: Image.Image, width: int, height: int, preprocessor: str = "none") -> Tensor:
    """Returns a hint [1, 3, height, width] in 0..1; a picture with another aspect ratio is cropped, not stretched.

    Edges are detected at the final size, so they are as thin as those that ControlNets were trained on.
    """
    if preprocessor not in PREPROCESSORS:
        raise OptionsError(f'Unknown preprocessor "{preprocessor}"; choose one of {", ".join(PREPROCESSORS)}.')
    fitted = ImageOps.fit(_on_black(image), (width, height), Image.Resampling.LANCZOS)
    if preprocessor == "canny":
        fitted = canny(fitted)
    pixels = np.asarray(fitted, dtype=np.float32) / 255.0
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def canny(image: Image.Image, low: float = CANNY_LOW, high: float = CANNY_HIGH) -> Image.Image:
    """Draws white edges on black; `low` and `high` are the hysteresis thresholds, for gradients of 0..255 values."""
    edges = canny_edges(np.asarray(_on_black(image)), low, high)
    return Image.fromarray(np.where(edges, np.uint8(255), np.uint8(0))).convert("RGB")


def _on_black(image: Image.Image) -> Image.Image:
    """Converts to upright RGB; transparent parts become black, which means "nothing" in every kind of hint."""
    image = ImageOps.exif_transpose(image)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
