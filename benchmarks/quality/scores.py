"""FID (Heusel et al. 2017) and CLIP score (Hessel et al. 2021) of pictures, as MLPerf computes them for SDXL.

The packages for FID (torch-fidelity, clean-fid, pytorch-fid) need torchvision for their Inception network. Here it is
a function from a file that the user names, and what is left of FID are a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modules.text.tokenizer import BOS, EOS, Tokenizer

INCEPTION_SIZE = 299
TOKENS = 77
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Network = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Statistics:
    """The mean [F] and the covariance [F, F] of features, in float64."""

    mean: Tensor
    covariance: Tensor


def inception_features(network: Network, picture: Image.Image, device: torch.device) -> Tensor:
    """The features [F] of a picture, in float64. `network` takes [1, 3, 299, 299], from -1 to 1.

    What it returns may also be the first of several results, as in pytorch-fid.
    """
    pixels = pixels_of(picture).to(device)
    resized = F.interpolate(pixels, size=(INCEPTION_SIZE, INCEPTION_SIZE), mode="bilinear", align_corners=False)
    returned = network(2 * resized - 1)
    features: Tensor = returned[0] if isinstance(returned, list | tuple) else returned
    return features.flatten().double().cpu()


def statistics_of(features: Sequence[Tensor]) -> Statistics:
    """The statistics of at least two features [F]."""
    rows = torch.stack(list(features))
    return Statistics(rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]))


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½).

    The trace of the root is the sum of the roots of the eigenvalues of C1^½ C2 C1^½, which is symmetric.
    """
    values, vectors = torch.linalg.eigh(first.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    of_both = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp_min(0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return float((first.mean - second.mean).square().sum() + traces - 2 * of_both)


def clip_score(model: Any, tokenizer: Tokenizer, picture: Image.Image, caption: str) -> float:
    """100 times the cosine between a picture and its caption. `model` is transformers' CLIPModel."""
    side = model.config.vision_config.image_size
    ids = [BOS, *tokenizer.encode(caption)[: TOKENS - 2], EOS]
    padded = torch.tensor([ids + [0] * (TOKENS - len(ids))], device=model.device)
    seen = model(input_ids=padded, pixel_values=clip_pixels(picture, side).to(model.device, model.dtype))
    return 100 * float(F.cosine_similarity(seen.image_embeds.float(), seen.text_embeds.float()))


def clip_pixels(picture: Image.Image, side: int) -> Tensor:
    """The middle of a picture [1, 3, side, side] in CLIP's range, after its shorter side was made `side`."""
    width, height = picture.size
    shorter = min(width, height)
    resized = picture.convert("RGB").resize(
        (side * width // shorter, side * height // shorter), Image.Resampling.BICUBIC
    )
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    pixels = pixels_of(resized.crop((left, top, left + side, top + side)))
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def pixels_of(picture: Image.Image) -> Tensor:
    """[1, 3, height, width] from 0 to 1."""
    array = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None]
