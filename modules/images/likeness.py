"""How alike two pictures of the same size are: error in dB, and structure (SSIM, Wang et al. 2004)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels
LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def difference(first: Image.Image, second: Image.Image) -> tuple[float, int]:
    """Returns PSNR in dB and the largest difference (0 to 255)."""
    error = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    mean = float(np.mean(error**2))
    psnr = math.inf if mean == 0 else 10 * math.log10(255**2 / mean)
    return psnr, int(np.abs(error).max())


def structural_similarity(first: Image.Image, second: Image.Image) -> float:
    """The mean likeness of all windows of both pictures in grey; 1 for equal pictures."""
    x, y = _grey(first), _grey(second)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + LUMINANCE) * (2 * covariance + CONTRAST)
    return float((likeness / ((mean_x**2 + mean_y**2 + LUMINANCE) * (variances + CONTRAST))).mean())


def _grey(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float64))[None, None]


def _blurred(values: Tensor) -> Tensor:
    """Means over windows that lie inside the picture; a picture smaller than a window is one of its own."""
    window = _window(min(WINDOW, values.shape[2])), _window(min(WINDOW, values.shape[3]))
    return F.conv2d(F.conv2d(values, window[0][None, None, :, None]), window[1][None, None, None, :])


def _window(width: int) -> Tensor:
    places = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    return weights / weights.sum()
