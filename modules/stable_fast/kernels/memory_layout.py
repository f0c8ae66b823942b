"""Images in NHWC memory (channels-last), and the same memory viewed as rows of pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_channels_last(x: Tensor) -> Tensor:
    """`x` itself if it is already NHWC in memory, else an NHWC copy."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_channels_last(shape: tuple[Any, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An NHWC image of this shape [N, C, H, W], with the device of `like`, and with its dtype if none is given."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


def pixel_rows(x: Tensor) -> Tensor:
    """The [N * H * W, C] view of an NHWC image."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def rows_as_image(rows: Tensor, like: Tensor) -> Tensor:
    """The NHWC image [N, C, H, W] over rows [N * H * W, C], with the batch and size of `like`."""
    return rows.view(like.shape[0], *like.shape[2:], -1).permute(0, 3, 1, 2)
