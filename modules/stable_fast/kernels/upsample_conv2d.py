"""Nearest 2x upsampling then a 3x3 convolution (padding 1), computed as four 2x2 convolutions at the small size.

Output pixel (2i + p, 2j + q) only sees a 2x2 patch of the input, so its 3x3 taps can be summed beforehand
(`prepare_subpixel_weight`, [4 * Cout, Cin, 2, 2], parity-major): 16/36 of the multiplications, the same result up to
the rounding of the summed weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels._dispatch import channels_last, empty_channels_last, register

# Rows: the two taps left for a parity; columns: which of the three original taps each one sums.
_TAPS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


def prepare_subpixel_weight_reference(weight: Tensor) -> Tensor:
    taps = torch.tensor(_TAPS, dtype=torch.float32, device=weight.device)
    summed = torch.einsum("oiyx,pay,qbx->pqoiab", weight.float(), taps, taps)
    return channels_last(summed.reshape(4 * weight.shape[0], weight.shape[1], 2, 2).to(weight.dtype))


def upsample_conv2d_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One 2x2 convolution for all parities over the padded input; each parity keeps its own crop of the windows."""
    batch, _, height, width = x.shape
    windows = F.conv2d(x, weight, None, padding=1).unflatten(1, (2, 2, weight.shape[0] // 4))
    rows = torch.stack([windows[:, p, :, :, p : p + height] for p in (0, 1)], dim=1)
    both = torch.stack([rows[:, :, q, ..., q : q + width] for q in (0, 1)], dim=2)
    y = both.permute(0, 3, 4, 1, 5, 2).reshape(batch, weight.shape[0] // 4, 2 * height, 2 * width)
    return channels_last(y if bias is None else y + bias[:, None, None])


def _upsample_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return upsample_conv2d_reference(x, weight, bias)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last((x.shape[0], weight.shape[0] // 4, 2 * x.shape[2], 2 * x.shape[3]), x)


def _fake_weight(weight: Tensor) -> Tensor:
    return empty_channels_last((4 * weight.shape[0], weight.shape[1], 2, 2), weight)


register("prepare_subpixel_weight(Tensor weight) -> Tensor", prepare_subpixel_weight_reference, _fake_weight)
register("upsample_conv2d(Tensor x, Tensor weight, Tensor? bias) -> Tensor", _upsample_conv2d, _fake)

prepare_subpixel_weight = torch.ops.lightdiffusion.prepare_subpixel_weight
