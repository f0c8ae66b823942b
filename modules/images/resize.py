"""Enlarges and shrinks latents and pictures."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modules.core.errors import OptionsError
from modules.images.methods import IMAGE_MODES, LATENT_METHODS

_NEARLY_PARALLEL = 1 - 1e-5  # above this cosine, the arc between two vectors is numerically a point or undefined


def resize_latent(latent: Tensor, height: int, width: int, method: str = "bislerp") -> Tensor:
    """Resizes [N, C, h, w] to [N, C, height, width]; computes in float32 and returns the latent's dtype."""
    if method not in LATENT_METHODS:
        raise OptionsError(f'Unknown latent upscale method "{method}"; choose one of {", ".join(LATENT_METHODS)}.')
    values = latent.float()
    size = (height, width)
    if method == "bislerp":
        resized = _bislerp(values, height, width)
    elif method in ("nearest-exact", "area"):
        resized = F.interpolate(values, size, mode=method)
    else:
        mode, _, antialias = method.partition("-")
        resized = F.interpolate(values, size, mode=mode, align_corners=False, antialias=bool(antialias))
    return resized.to(latent.dtype)


def resize_image(
    image: Image.Image,
    width: int,
    height: int,
    mode: str = "stretch",
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Resizes a picture: `stretch` ignores the aspect ratio, `crop` keeps the middle, `fill` repeats border pixels."""
    if mode not in IMAGE_MODES:
        raise OptionsError(f'Unknown resize mode "{mode}"; choose one of {", ".join(IMAGE_MODES)}.')
    if image.size == (width, height):
        return image
    if mode == "stretch":
        return image.resize((width, height), resample)
    ratios = (width / image.width, height / image.height)
    if mode == "crop":  # cropped while resizing: otherwise a very long picture would take gigabytes
        cut_x, cut_y = (
            max(0.0, (old - new / max(ratios)) / 2) for old, new in zip(image.size, (width, height), strict=True)
        )
        box = (cut_x, cut_y, image.width - cut_x, image.height - cut_y)
        return image.resize((width, height), resample, box=box)
    scale = min(ratios)
    inner = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resample)
    return pad_with_border(inner, width, height, (width - inner.width) // 2, (height - inner.height) // 2)


def pad_with_border(image: Image.Image, width: int, height: int, left: int, top: int) -> Image.Image:
    """Places a picture at `left` and `top` in one of width x height pixels, and repeats its border pixels round it."""
    pixels = np.asarray(image)
    padding = [(top, height - image.height - top), (left, width - image.width - left), (0, 0)]
    return Image.fromarray(np.pad(pixels, padding[: pixels.ndim], mode="edge"))


def _bislerp(latent: Tensor, height: int, width: int) -> Tensor:
    """Interpolates directions along the arc and lengths linearly, first over columns, then over rows."""
    wide = _slerp_last_axis(latent, width)
    return _slerp_last_axis(wide.transpose(2, 3), height).transpose(2, 3).contiguous()


def _slerp_last_axis(latent: Tensor, length: int) -> Tensor:
    """Places each output cell between two input cells, as bilinear interpolation does (align_corners=False)."""
    old = latent.shape[-1]
    places = torch.arange(length, dtype=torch.float64).add(0.5).mul(old / length).sub(0.5).clamp(0, old - 1)
    first = places.floor().long()
    second = (first + 1).clamp(max=old - 1)
    fraction = (places - first).to(latent.dtype)
    first, second, fraction = (tensor.to(latent.device) for tensor in (first, second, fraction))
    return _slerp(latent.index_select(-1, first), latent.index_select(-1, second), fraction)


def _slerp(a: Tensor, b: Tensor, fraction: Tensor) -> Tensor:
    """Interpolates channel vectors of [N, C, h, w] spherically; `fraction` [w] runs from a to b."""
    length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    unit_a, unit_b = _unit(a, length_a), _unit(b, length_b)
    cosine = (unit_a * unit_b).sum(dim=1, keepdim=True)
    angle = torch.acos(cosine.clamp(-_NEARLY_PARALLEL, _NEARLY_PARALLEL))
    direction = (unit_a * torch.sin((1 - fraction) * angle) + unit_b * torch.sin(fraction * angle)) / torch.sin(angle)
    arc = direction * (length_a * (1 - fraction) + length_b * fraction)
    arc = torch.where(cosine > _NEARLY_PARALLEL, a, arc)
    return torch.where(cosine < -_NEARLY_PARALLEL, a * (1 - fraction) + b * fraction, arc)


def _unit(vectors: Tensor, lengths: Tensor) -> Tensor:
    return torch.where(lengths > 0, vectors / lengths, torch.zeros_like(vectors))
