"""Convolution of 8-bit numbers with its epilogue, NHWC in memory.

y = act(conv2d(q, w) * scale * weight_scale[:, None, None] + bias + vector[:, :, None, None] + residual)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.conv.conv2d_epilogue import conv_output_size
from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue, launch_conv
from modules.stable_fast.kernels.conv.implicit_matmul_tma import TMA_CONV_TILES, launch_tma_conv
from modules.stable_fast.kernels.devices import CardClass, card_class, uses_eight_bit_kernels
from modules.stable_fast.kernels.linear.matmul import Tile
from modules.stable_fast.kernels.memory_layout import empty_channels_last, to_channels_last
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.scales import Scales

TILES = (Tile(128, 64, 128, 4, 3), Tile(128, 128, 128, 8, 3), Tile(64, 64, 128, 4, 4))
FEW_PIXELS = 512
NARROW = 320  # output channels


def conv2d_eight_reference(
    q: Tensor,
    scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """q [B, C, H, W]; scale [1]; weight_q [N, C, kh, kw]; weight_scale and bias [N]; vector [B or 1, N]."""
    y = F.conv2d(q.float(), weight_q.float(), None, stride, padding) * scale * weight_scale[:, None, None]
    if bias is not None:
        y = y + bias[:, None, None]
    if vector is not None:
        y = y + vector[:, :, None, None]
    if residual is not None:
        y = y + residual
    return to_channels_last(activate(y, activation).to(dtype))


_Conv = Callable[[Tensor, Tensor, Epilogue, int, int], Tensor]
IMPLEMENTATIONS: dict[str, _Conv] = {tile.name: partial(launch_conv, tile=tile) for tile in TILES}
HOPPER: dict[str, _Conv] = {tile.name: partial(launch_tma_conv, tile=tile) for tile in TMA_CONV_TILES}
# cuBLASLt's e4m3 products over patches are no candidates: where sums are deep and pixels few, which is where gathering
# patches pays, it has no product with a scale for each row (see pytorch/ao, issue 4582).


def _in_turn(q: Tensor, out: int, stride: int) -> tuple[dict[str, _Conv], tuple[str, ...]]:
    """The candidates, and the names that are tried in turn without tuning, by what was fastest on an H200."""
    pixels = q.shape[0] * q.shape[2] * q.shape[3] // stride**2
    if card_class(q) is not CardClass.WGMMA:
        # With few pixels, wide tiles are so few that programs share the depth.
        first = TILES[1] if pixels <= FEW_PIXELS else TILES[0]
        return IMPLEMENTATIONS, (first.name, *IMPLEMENTATIONS)
    if stride != 1:
        return IMPLEMENTATIONS, tuple(IMPLEMENTATIONS)
    wide, square, narrow = HOPPER
    first = narrow if pixels <= FEW_PIXELS else wide if out <= NARROW else square
    return HOPPER, (first, *HOPPER)


def _conv2d_eight(
    q: Tensor,
    scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    args = (q, scale, weight_q, weight_scale, bias, vector, residual, stride, padding, activation, dtype)
    if not uses_eight_bit_kernels(q):
        return conv2d_eight_reference(*args)
    q, weight_q = to_channels_last(q), to_channels_last(weight_q)
    residual = None if residual is None else to_channels_last(residual)
    epilogue = Epilogue(bias, vector, residual, activation, Scales(scale, weight_scale, dtype))
    each = vector is not None and vector.shape[0] > 1  # each sample has its own vector, instead of one for all
    present = (bias is not None, "each" if each else vector is not None, residual is not None)
    key = (*q.shape, len(weight_q), weight_q.shape[2], stride, padding, *present, activation, dtype_key(q))
    candidates, chain = _in_turn(q, len(weight_q), stride)
    reference = partial(conv2d_eight_reference, *args)
    return run_chosen(
        "conv2d_eight", key, candidates, chain, (q, weight_q, epilogue, stride, padding), reference
    )  # fmt: skip


def _fake(
    q: Tensor,
    scale: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    height = conv_output_size(q.shape[2], weight_q.shape[2], stride, padding)
    width = conv_output_size(q.shape[3], weight_q.shape[3], stride, padding)
    shape = (q.shape[0], weight_q.shape[0], height, width)
    return empty_channels_last(shape, q, dtype)


register(
    "conv2d_eight(Tensor q, Tensor scale, Tensor weight_q, Tensor weight_scale, Tensor? bias, Tensor? vector, "
    "Tensor? residual, int stride, int padding, str activation, ScalarType dtype) -> Tensor",
    _conv2d_eight,
    _fake,
)
