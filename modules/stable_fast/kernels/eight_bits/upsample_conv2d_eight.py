"""Nearest 2x upsampling and a 3x3 convolution of 8-bit numbers, as four 2x2 convolutions (see upsample_conv2d.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.conv.implicit_matmul import launch_subpixel_conv
from modules.stable_fast.kernels.conv.implicit_matmul_tma import TMA_CONV_TILES, launch_tma_subpixel_conv
from modules.stable_fast.kernels.conv.upsample_conv2d import upsample_conv2d_reference
from modules.stable_fast.kernels.devices import CardClass, card_class, uses_eight_bit_kernels
from modules.stable_fast.kernels.eight_bits.conv2d_eight import TILES
from modules.stable_fast.kernels.memory_layout import empty_channels_last, to_channels_last
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.scales import Scales


def upsample_conv2d_eight_reference(
    q: Tensor, scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """q [B, C, H, W]; scale [1]; weight_q [4 N, C, 2, 2] and weight_scale [4 N], of a prepared weight; bias [N]."""
    weight = weight_q.float() * weight_scale[:, None, None, None]
    y = upsample_conv2d_reference(q.float() * scale, weight, None if bias is None else bias.float())
    return to_channels_last(y.to(dtype))


# The first tile of the plain convolution spills registers here.
IMPLEMENTATIONS = {tile.name: partial(launch_subpixel_conv, tile=tile) for tile in (TILES[1], TILES[0], *TILES[2:])}
HOPPER = {tile.name: partial(launch_tma_subpixel_conv, tile=tile) for tile in TMA_CONV_TILES}


def _upsample_conv2d_eight(
    q: Tensor, scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    reference = partial(upsample_conv2d_eight_reference, q, scale, weight_q, weight_scale, bias, dtype)
    if not uses_eight_bit_kernels(q):
        return reference()
    key = (*q.shape, len(weight_q), bias is not None, dtype_key(q))
    scales = Scales(scale, weight_scale, dtype)

    def run(launch: Callable[..., Tensor], x: Tensor, weight: Tensor) -> Tensor:
        return launch(x, weight, bias, scales=scales)

    candidates = {
        name: partial(run, launch)
        for name, launch in (HOPPER if card_class(q) is CardClass.WGMMA else IMPLEMENTATIONS).items()
    }
    args = (to_channels_last(q), to_channels_last(weight_q))
    return run_chosen("upsample_conv2d_eight", key, candidates, tuple(candidates), args, reference)


def _fake(
    q: Tensor, scale: Tensor, weight_q: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    shape = (q.shape[0], weight_q.shape[0] // 4, 2 * q.shape[2], 2 * q.shape[3])
    return empty_channels_last(shape, q, dtype)


register(
    "upsample_conv2d_eight(Tensor q, Tensor scale, Tensor weight_q, Tensor weight_scale, Tensor? bias, "
    "ScalarType dtype) -> Tensor",
    _upsample_conv2d_eight,
    _fake,
)
