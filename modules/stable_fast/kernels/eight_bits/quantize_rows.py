"""8-bit numbers with a scale for each row: each token of an activation, each output channel of a weight."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modules.stable_fast.kernels.choices import dtype_key
from modules.stable_fast.kernels.devices import writes_eight_bits
from modules.stable_fast.kernels.eight_bits.row_kernels import launch_quantize_rows
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.registry import register, run_chosen
from modules.stable_fast.kernels.scaled.kinds import quantised, scale_for

SLICE = 128  # output channels


def quantize_rows_reference(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [..., K] -> q [..., K], scale [..., 1]."""
    scale = scale_for(x.float().abs().amax(-1, keepdim=True), kind)
    return quantised(x, scale, kind).contiguous(), scale


def quantize_channels_reference(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """weight [N, ...] -> q in its memory format, scale [N]."""
    q, scales = torch.empty_like(weight, dtype=kind), []
    # In slices, because the whole weight in fp32 would need much memory.
    for part, target in zip(weight.split(SLICE), q.split(SLICE), strict=True):
        scale = scale_for(part.float().abs().flatten(1).amax(1), kind)
        target.copy_(quantised(part, scale.view(-1, *[1] * (part.dim() - 1)), kind))
        scales.append(scale)
    return q, torch.cat(scales)


def _matrix(x: Tensor) -> Tensor:
    return x.view(-1, x.shape[-1])


def _in_memory(weight: Tensor) -> Tensor:
    """With its dimensions in the order of the memory."""
    return weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight


def launch_rows(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    q = torch.empty_like(x, dtype=kind)
    scale = launch_quantize_rows(_matrix(x), _matrix(q))
    return q, scale.view(*x.shape[:-1], 1)


def launch_channels(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    q = torch.empty_like(weight, dtype=kind)
    return q, launch_quantize_rows(*(_in_memory(x).view(len(weight), -1) for x in (weight, q)))


def _quantize_rows(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    if not writes_eight_bits(x, kind):
        return quantize_rows_reference(x, kind)
    key, args = (x.numel() // x.shape[-1], x.shape[-1], dtype_key(x), str(kind)), (x.contiguous(), kind)
    reference = partial(quantize_rows_reference, x, kind)
    return run_chosen("quantize_rows", key, {"triton": launch_rows}, ("triton",), args, reference)


def _quantize_channels(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """A weight of four dimensions is NHWC in memory afterwards, any other one contiguous."""
    weight = to_channels_last(weight) if weight.dim() == 4 else weight.contiguous()
    if not writes_eight_bits(weight, kind):
        return quantize_channels_reference(weight, kind)
    key = (len(weight), weight.numel() // len(weight), dtype_key(weight), str(kind))
    reference = partial(quantize_channels_reference, weight, kind)
    return run_chosen("quantize_channels", key, {"triton": launch_channels}, ("triton",), (weight, kind), reference)


def _fake_rows(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=kind), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _fake_channels(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    layout = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    q = torch.empty_like(weight, dtype=kind, memory_format=layout)
    return q, weight.new_empty(weight.shape[:1], dtype=torch.float32)


register("quantize_rows(Tensor x, ScalarType kind) -> (Tensor, Tensor)", _quantize_rows, _fake_rows)
register("quantize_channels(Tensor weight, ScalarType kind) -> (Tensor, Tensor)", _quantize_channels, _fake_channels)
