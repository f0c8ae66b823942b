"""Turns a picture into a hint: resizes the picture to the size of the result, then preprocesses it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from modules.controlnet.preprocessors import FUNCTIONS


def make_hint(image: Image.Image, width: int, height: int, preprocessor: str = "none") -> Tensor:
    """Returns a hint [1, 3, height, width] in 0..1; a picture with another aspect ratio is cropped, not stretched.

    `preprocessor` is one of `PREPROCESSORS`. It sees the final size, so that edges are as thin as those that
    ControlNets were trained on.
    """
    fitted = ImageOps.fit(_on_black(image), (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(FUNCTIONS[preprocessor](fitted), dtype=np.float32) / 255.0
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def _on_black(image: Image.Image) -> Image.Image:
    """Converts to upright RGB; transparent parts become black, which means "nothing" in every kind of hint."""
    image = ImageOps.exif_transpose(image)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
