"""Nearest 2x upsampling and a 3x3 convolution (padding 1), computed as four 2x2 convolutions at the small size.

Output pixel (2i + p, 2j + q) only sees a 2x2 patch of the input, so `prepare_subpixel_weight` can sum its 3x3 taps
beforehand: [4 * Cout, Cin, 2, 2], parity-major. That takes 16/36 of the multiplications and gives the same result, up
to the rounding of the summed weights.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import product_key
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.conv.implicit_matmul import CONV_TILES, launch_subpixel_conv
from modules.stable_fast.kernels.conv.implicit_matmul_tma import TMA_CONV_TILES, launch_tma_subpixel_conv
from modules.stable_fast.kernels.conv.libraries import bare_conv
from modules.stable_fast.kernels.devices import card_class, runs_kernels, uses_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.memory_layout import empty_channels_last, to_channels_last
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.triton_import import jit_for_any, tl, triton

SLICE = 128  # output channels
# Rows are the two taps left for a parity; columns mark which of the three original taps each row sums.
_TAPS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


def prepare_subpixel_weight_reference(weight: Tensor) -> Tensor:
    taps = torch.tensor(_TAPS, dtype=torch.float32, device=weight.device)
    prepared = empty_channels_last((4 * weight.shape[0], weight.shape[1], 2, 2), weight)
    parities = prepared.unflatten(0, (2, 2, weight.shape[0]))
    # In slices, because the whole weight in fp32 would need more memory than any other part of compiling.
    for part, target in zip(weight.split(SLICE), parities.split(SLICE, dim=2), strict=True):
        target.copy_(torch.einsum("oiyx,pay,qbx->pqoiab", part.float(), taps, taps))
    return prepared


def upsample_conv2d_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One 2x2 convolution over the padded input serves all parities. Each parity keeps its own crop of the windows."""
    batch, _, height, width = x.shape
    windows = F.conv2d(x, weight, None, padding=1).unflatten(1, (2, 2, weight.shape[0] // 4))
    rows = torch.stack([windows[:, p, :, :, p : p + height] for p in (0, 1)], dim=1)
    both = torch.stack([rows[:, :, q, ..., q : q + width] for q in (0, 1)], dim=2)
    y = both.permute(0, 3, 4, 1, 5, 2).reshape(batch, weight.shape[0] // 4, 2 * height, 2 * width)
    return to_channels_last(y if bias is None else y + bias[:, None, None])


@jit_for_any("H", "W")
def _unfold_parities_kernel(w_ptr, bias_ptr, y_ptr, H, W, C, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr):
    """y[n, 2i+p, 2j+q, c] = windows[n, i+p, j+q, 2p+q, c] + bias[c], for a part of one row of y."""
    row = tl.program_id(0)
    n, y = row // (2 * H), row % (2 * H)
    p = y % 2
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < 2 * W * C
    x, c = offset // C, offset % C
    q = x % 2
    windows = w_ptr + (n * (H + 1) + y // 2 + p).to(tl.int64) * (W + 1) * 4 * C
    value = tl.load(windows + ((x // 2 + q) * 4 + 2 * p + q) * C + c, mask=mask)
    if HAS_BIAS:
        value = value.to(tl.float32) + tl.load(bias_ptr + c, mask=mask).to(tl.float32)
    tl.store(y_ptr + row.to(tl.int64) * 2 * W * C + offset, value.to(y_ptr.dtype.element_ty), mask=mask)


def launch_unfold_parities(windows: Tensor, bias: Tensor | None) -> Tensor:
    """windows [N, 4 C, H + 1, W + 1] -> [N, C, 2 H, 2 W], both NHWC in memory, bias added."""
    batch, channels, height, width = windows.shape[0], windows.shape[1] // 4, *(s - 1 for s in windows.shape[2:])
    assert runs_kernels(windows) and windows.is_contiguous(memory_format=torch.channels_last)
    y = empty_channels_last((batch, channels, 2 * height, 2 * width), windows)
    launch_kernel(
        _unfold_parities_kernel,
        (batch * 2 * height, triton.cdiv(2 * width * channels, 2048)),
        windows,
        y if bias is None else bias,
        y,
        height,
        width,
        channels,
        HAS_BIAS=bias is not None,
        BLOCK=2048,
    )
    return y


def _cudnn(x: Tensor, weight: Tensor, bias: Tensor | None, *, benchmark: bool) -> Tensor:
    return launch_unfold_parities(bare_conv(x, weight, 1, 1, benchmark=benchmark), bias)


_TILES = {tile.name: partial(launch_subpixel_conv, tile=tile) for tile in CONV_TILES}
CANDIDATES = Candidates(
    {"cudnn": partial(_cudnn, benchmark=False), "cudnn_benchmark": partial(_cudnn, benchmark=True)},
    _TILES,
    _TILES | {tile.name: partial(launch_tma_subpixel_conv, tile=tile) for tile in TMA_CONV_TILES},
)
CHAIN = ("cudnn", CONV_TILES[0].name)


def _upsample_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not uses_kernels(x):
        return upsample_conv2d_reference(x, weight, bias)
    key = (*x.shape, weight.shape[0], bias is not None, product_key(x))
    args = (to_channels_last(x), to_channels_last(weight), bias)
    candidates, reference = CANDIDATES.on(card_class(x)), partial(upsample_conv2d_reference, *args)
    return run_chosen("upsample_conv2d", key, candidates, CHAIN, args, reference)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_channels_last((x.shape[0], weight.shape[0] // 4, 2 * x.shape[2], 2 * x.shape[3]), x)


def _fake_weight(weight: Tensor) -> Tensor:
    return empty_channels_last((4 * weight.shape[0], weight.shape[1], 2, 2), weight)


register("prepare_subpixel_weight(Tensor weight) -> Tensor", prepare_subpixel_weight_reference, _fake_weight)
register("upsample_conv2d(Tensor x, Tensor weight, Tensor? bias) -> Tensor", _upsample_conv2d, _fake)

prepare_subpixel_weight = torch.ops.lightdiffusion.prepare_subpixel_weight
