"""Judges a picture by geometry and colour: background, objects, their shapes, places and colours, the sun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from tools.demo_model.world.render import shape_distance
from tools.demo_model.world.scenes import COLOURS, PALETTE, SHAPES

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
CONTRAST = 60.0  # smallest RGB distance from the background
SMALLEST = 0.008  # smallest share of the picture that counts as an object
_PALETTE = np.array(list(PALETTE.values()), dtype=np.float64)


@dataclass(frozen=True)
class Found:
    """One object: centre of its box in -1..1 (y down), area as a share of the picture, mask over the whole picture."""

    colour: str
    shape: str
    iou: float
    x: float
    y: float
    area: float
    mask: Mask


@dataclass(frozen=True)
class Reading:
    background: str
    objects: tuple[Found, ...]  # largest first


def to_pixels(images: Tensor) -> list[Pixels]:
    """Converts [N, 3, H, W] in -1..1 to N arrays [H, W, 3]."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())


def nearest_colour(rgb: NDArray[np.float64]) -> str:
    return COLOURS[int(np.argmin(((_PALETTE - rgb) ** 2).sum(1)))]


def background_of(picture: Pixels) -> NDArray[np.float64]:
    """Returns the median of the border."""
    rim = max(2, picture.shape[0] // 32)
    values = picture.astype(np.float64)
    sides = (values[:rim], values[-rim:], values[:, :rim], values[:, -rim:])
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)


def read_picture(picture: Pixels) -> Reading:
    """Finds connected regions that differ from the background, and matches each with the known shapes."""
    background = background_of(picture)
    distance = np.sqrt(((picture.astype(np.float64) - background) ** 2).sum(-1))
    labels, count = ndimage.label(distance > CONTRAST)
    found = [
        _describe(picture, labels == index) for index in range(1, count + 1) if (labels == index).mean() > SMALLEST
    ]
    return Reading(nearest_colour(background), tuple(sorted(found, key=lambda item: -item.area)))


def _describe(picture: Pixels, mask: Mask) -> Found:
    height, width = mask.shape
    rows, columns = np.where(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    inner = ndimage.binary_erosion(mask, iterations=max(1, height // 64))
    colour = nearest_colour(np.median(picture[inner if inner.any() else mask].astype(np.float64), axis=0))
    scores = {shape: template_iou(shape, mask[top:bottom, left:right]) for shape in SHAPES}
    best = max(scores, key=lambda shape: scores[shape])
    x, y = (left + right) / width - 1, (top + bottom) / height - 1
    return Found(colour, best, scores[best], float(x), float(y), float(mask.mean()), mask)


@cache
def _template(shape: str) -> Mask:
    """Returns the ideal shape, cropped to its bounding box."""
    grid = torch.linspace(-1.3, 1.3, 521)
    x, y = grid[None, None, :].expand(1, 521, 521), grid[None, :, None].expand(1, 521, 521)
    mask = (shape_distance(torch.tensor([SHAPES.index(shape)]), x, y)[0] < 0).numpy()
    rows, columns = np.where(mask)
    return mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def template_iou(shape: str, mask: Mask) -> float:
    """Returns the overlap of a cut-out mask with the ideal shape stretched to the same box."""
    resized = Image.fromarray(_template(shape)).resize(mask.shape[::-1], Image.Resampling.NEAREST)
    ideal = np.array(resized)
    return overlap(ideal, mask)


def overlap(first: Mask | None, second: Mask | None) -> float:
    """Returns the intersection over union; 0 if a mask is missing."""
    if first is None or second is None:
        return 0.0
    return float((first & second).sum() / max(1, (first | second).sum()))


def sharpness(picture: Pixels) -> float:
    """Measures the steepest steps between neighbouring pixels (99.5th percentile)."""
    values = picture.astype(np.float64).mean(-1)
    return float(np.percentile(np.abs(np.diff(values, axis=1)), 99.5))


@dataclass(frozen=True)
class SunsetReading:
    warm_sky: bool
    sky_warmer_than_sea: bool
    side: str  # "left", "center" or "right"


def read_sunset(picture: Pixels) -> SunsetReading:
    """Measures a sunset. Warmth is red minus blue, and the sun is the brightest warm part of the sky."""
    height, width = picture.shape[:2]
    values = picture.astype(np.float64)
    sky, sea = values[int(height * 0.08) : int(height * 0.5)], values[int(height * 0.7) :]
    warm, cool = (float((part[..., 0] - part[..., 2]).mean()) for part in (sky, sea))
    upper = values[int(height * 0.1) : int(height * 0.56)]
    # the sun is the palest spot of a sunset: bright in red and green (smoothed, so that no single pixel decides)
    bright = ndimage.gaussian_filter(upper[..., 0] + upper[..., 1] + 0.5 * upper[..., 2], height / 32)
    weight = np.clip(bright - (bright.max() * 0.75 + np.median(bright) * 0.25), 0, None)
    x = float((weight * np.arange(width)).sum() / max(weight.sum(), 1e-9) / width)
    return SunsetReading(warm > 20, warm > cool, "left" if x < 0.4 else "right" if x > 0.6 else "center")
