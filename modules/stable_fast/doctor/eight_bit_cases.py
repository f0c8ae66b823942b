"""The calls of ops with 8-bit numbers for the self-test, of both kinds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modules.stable_fast.doctor.case import Case, Maker
from modules.stable_fast.kernels.conv.upsample_conv2d import prepare_subpixel_weight
from modules.stable_fast.kernels.eight_bits import (
    conv2d_eight,
    dequantize_channels,
    group_norm_silu_quantized,
    layer_norm_quantized,
    linear_eight,
    linear_geglu_eight,
    quantize_rows,
    quantize_tensor,
    upsample_conv2d_eight,
)
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.scaled.kinds import LARGEST

# Largest error of a product: the result is rounded to fp16. Hopper sums products of e4m3 with fewer bits than fp32 has.
PRODUCT = 8e-3
# A number between two others may be rounded to either, so the error is a step at the largest number.
STEP = {torch.float8_e4m3fn: 32.5 / 448, torch.int8: 1.1 / 127}


def eight_bit_cases(make: Maker) -> Iterator[Case]:
    for kind in LARGEST:
        yield from _writing(make, kind)
        yield from _linears(make, kind)
        yield from _convolutions(make, kind)


def _writing(make: Maker, kind: torch.dtype) -> Iterator[Case]:
    """What writes 8 bits."""
    step, one = STEP[kind], _scale(make, kind)
    for rows, channels in ((130, 320), (17, 1280), (64, 77)):
        x, weight, bias = make.rows(2, rows, channels) + 3.0, make.rows(channels), make.rows(channels)
        reference = layer_norm_quantized.layer_norm_quantized_reference
        yield Case("layer_norm_quantized", reference, (x, weight, bias, 1e-5, kind), step)
        args = (x, make.rows(2, rows, channels), weight, bias, 1e-5, kind)
        reference = layer_norm_quantized.add_layer_norm_quantized_reference
        yield Case("add_layer_norm_quantized", reference, args, 2 * step)  # the sum is rounded too
        yield Case("quantize_rows", quantize_rows.quantize_rows_reference, (x, kind), step)
    for weight in (make.rows(48, 72), make.image(40, 24, 3, 3), make.image(8, 1280, 3, 3)):
        yield Case("quantize_channels", quantize_rows.quantize_channels_reference, (weight, kind), step)
        stored = quantize_rows.quantize_channels_reference(weight, kind)
        reference = dequantize_channels.dequantize_channels_reference
        yield Case("dequantize_channels", reference, (*stored, make.dtype), PRODUCT)
    for batch, channels, size, groups in ((2, 320, 16, 32), (1, 60, 33, 4), (3, 64, 48, 2)):
        x, weight, bias = make.image(batch, channels, size, size) + 3.0, make.rows(channels), make.rows(channels)
        tail = (weight, bias, groups, 1e-5, True, one, kind)
        reference = group_norm_silu_quantized.group_norm_silu_quantized_reference
        yield Case("group_norm_silu_quantized", reference, (x, *tail), step)
        parts = (to_channels_last(x[:, : channels // 2]), to_channels_last(x[:, channels // 2 :]))
        reference = group_norm_silu_quantized.group_norm_silu_cat_quantized_reference
        yield Case("group_norm_silu_cat_quantized", reference, (*parts, *tail), step)
        yield Case("quantize_tensor", quantize_tensor.quantize_tensor_reference, (x, one, kind), step)
        yield Case("amax_tensor", quantize_tensor.amax_tensor_reference, (x,))


def _linears(make: Maker, kind: torch.dtype) -> Iterator[Case]:
    for rows, k, n in ((256, 320, 320), (77, 64, 208), (128, 1280, 320), (5, 24, 7)):
        operands = (*_rows(make, kind, 2, rows, k), *_channels(make, kind, make.rows(n, k, scale=k**-0.5)))
        bias, reference = make.rows(n), linear_eight.linear_eight_reference
        for residual, activation in ((None, "none"), (make.rows(2, rows, n), "none"), (None, "silu")):
            yield Case("linear_eight", reference, (*operands, bias, residual, activation, make.dtype), PRODUCT)
        one = (operands[0], _scale(make, kind), *operands[2:])
        yield Case("linear_eight", reference, (*one, None, None, "none", make.dtype), PRODUCT)
        weight = _channels(make, kind, make.rows(2 * n, k, scale=k**-0.5))
        args, geglu = (*operands[:2], *weight, make.rows(2 * n)), linear_geglu_eight
        yield Case("linear_geglu_eight", geglu.linear_geglu_eight_reference, (*args, make.dtype), PRODUCT)
        args, reference = (*args, _scale(make, kind), kind), geglu.linear_geglu_eight_quantized_reference
        yield Case("linear_geglu_eight_quantized", reference, args, STEP[kind])


def _convolutions(make: Maker, kind: torch.dtype) -> Iterator[Case]:
    reference = conv2d_eight.conv2d_eight_reference
    for channels, out, size, kernel, stride in (
        (64, 128, 16, 3, 1), (320, 320, 8, 3, 1), (64, 64, 17, 3, 2), (96, 128, 12, 1, 1), (144, 328, 20, 3, 1),
    ):  # fmt: skip
        weight = make.image(out, channels, kernel, kernel, scale=(channels * kernel**2) ** -0.5)
        operands = (*_image(make, kind, channels, size), *_channels(make, kind, weight))
        done = (size + 2 * (kernel // 2) - kernel) // stride + 1
        tail = (stride, kernel // 2, "none", make.dtype)
        yield Case("conv2d_eight", reference, (*operands, make.rows(out), make.rows(1, out), None, *tail), PRODUCT)
        full = (make.rows(out), make.rows(2, out), make.image(2, out, done, done))
        yield Case("conv2d_eight", reference, (*operands, *full, *tail), PRODUCT)
    reference = upsample_conv2d_eight.upsample_conv2d_eight_reference
    for channels, size in ((64, 8), (48, 13)):
        weight = prepare_subpixel_weight(make.image(channels, channels, 3, 3, scale=0.05))
        operands = (*_image(make, kind, channels, size), *_channels(make, kind, weight))
        yield Case("upsample_conv2d_eight", reference, (*operands, make.rows(channels), make.dtype), PRODUCT)


def _scale(make: Maker, kind: torch.dtype) -> Tensor:
    """With which numbers beyond 3 saturate."""
    return torch.full_like(make.rows(1), 3.0 / LARGEST[kind], dtype=torch.float32)


def _rows(make: Maker, kind: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    return quantize_rows.quantize_rows_reference(make.rows(*shape), kind)


def _channels(make: Maker, kind: torch.dtype, weight: Tensor) -> tuple[Tensor, Tensor]:
    return quantize_rows.quantize_channels_reference(weight, kind)


def _image(make: Maker, kind: torch.dtype, channels: int, size: int) -> tuple[Tensor, Tensor]:
    scale = _scale(make, kind)
    return quantize_tensor.quantize_tensor_reference(make.image(2, channels, size, size), scale, kind), scale
