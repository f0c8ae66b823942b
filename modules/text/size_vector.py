"""Builds what SDXL's UNet reads beside the text: the picture's sizes as Fourier features (Podell et al. 2023).

The numbers and their order are those of https://arxiv.org/abs/2307.01952, section 2.2, as diffusers and ComfyUI give
them. The refiner reads an aesthetic score in place of the target size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.models.layers import timestep_embedding

# ComfyUI's and A1111's scores for the prompt and the negative prompt.
PROMPT_SCORE, NEGATIVE_SCORE = 6.0, 2.5


@dataclass(frozen=True, kw_only=True)
class PictureSizes:
    """The sizes in pixels that SDXL is told: (width, height) of target and original, (x, y) of the crop's corner.

    In training, a picture of the original size was shrunk and then cropped to the target size.
    """

    target: tuple[int, int]
    original: tuple[int, int]
    crop: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class SizeFeatures:
    """The Fourier features [F] that follow the pooled text of the prompt and of the negative prompt."""

    prompt: Tensor
    negative: Tensor


def size_features(sizes: PictureSizes, width: int, *, refiner: bool) -> SizeFeatures:
    """Returns the features of total width F = `width`. Raises ModelFileError if it does not fit the numbers."""
    if refiner:
        return SizeFeatures(
            prompt=_features([*_seen(sizes), PROMPT_SCORE], width),
            negative=_features([*_seen(sizes), NEGATIVE_SCORE], width),
        )
    features = _features([*_seen(sizes), *reversed(sizes.target)], width)
    return SizeFeatures(prompt=features, negative=features)


def _seen(sizes: PictureSizes) -> list[float]:
    """Returns the original height and width, and the crop's top and left."""
    return [*reversed(sizes.original), *reversed(sizes.crop)]


def _features(numbers: list[float], width: int) -> Tensor:
    each, rest = divmod(width, len(numbers))
    if each < 2 or each % 2 or rest:
        raise ModelFileError(
            f"This UNet leaves {width} values for {len(numbers)} picture sizes, which do not divide evenly; "
            "use an SDXL checkpoint."
        )
    return timestep_embedding(torch.tensor(numbers), each).flatten()
