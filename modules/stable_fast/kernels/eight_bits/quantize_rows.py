"""8-bit numbers with a scale for each row: each token of an activation, each output channel of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.stable_fast.kernels.eight_bits.kinds import quantised, scale_for
from modules.stable_fast.kernels.registry import register

SLICE = 128  # output channels


def quantize_rows_reference(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [..., K] -> q [..., K], scale [..., 1]."""
    scale = scale_for(x.float().abs().amax(-1, keepdim=True), kind)
    return quantised(x, scale, kind).contiguous(), scale


def quantize_channels_reference(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """weight [N, ...] -> q in the same memory format, scale [N]."""
    q, scales = torch.empty_like(weight, dtype=kind), []
    # In slices, because the whole weight in fp32 would need much memory.
    for part, target in zip(weight.split(SLICE), q.split(SLICE), strict=True):
        scale = scale_for(part.float().abs().flatten(1).amax(1), kind)
        target.copy_(quantised(part, scale.view(-1, *[1] * (part.dim() - 1)), kind))
        scales.append(scale)
    return q, torch.cat(scales)


def _quantize_rows(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return quantize_rows_reference(x, kind)


def _quantize_channels(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return quantize_channels_reference(weight, kind)


def _fake_rows(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=kind), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _fake_channels(weight: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.empty_like(weight, dtype=kind), weight.new_empty(weight.shape[:1], dtype=torch.float32)


register("quantize_rows(Tensor x, ScalarType kind) -> (Tensor, Tensor)", _quantize_rows, _fake_rows)
register("quantize_channels(Tensor weight, ScalarType kind) -> (Tensor, Tensor)", _quantize_channels, _fake_channels)
