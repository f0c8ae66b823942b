"""Turns a picture into a hint: resizes the picture to the size of the result, then preprocesses it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules.controlnet.preprocessors import hint_picture


def make_hint(image: Image.Image, width: int, height: int, preprocessor: str = "none") -> Tensor:
    """Returns the hint picture (see `hint_picture`) as a tensor [1, 3, height, width] in 0..1."""
    pixels = np.asarray(hint_picture(image, width, height, preprocessor), dtype=np.float32) / 255.0
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
