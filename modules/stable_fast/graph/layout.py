"""Two views of the same channels-last memory: feature map [N, C, h, w] and tokens [N, h*w, C], without copies."""

from __future__ import annotations

from torch import Tensor


def as_tokens(x: Tensor) -> Tensor:
    """Feature map [N, C, h, w], channels-last, viewed as tokens [N, h*w, C]."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [N, height*width, C] viewed as a channels-last feature map [N, C, height, width]."""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
