"""RRDBNet: the network of ESRGAN (Wang et al. 2018, arXiv 1809.00219) and Real-ESRGAN (2021, arXiv 2107.10833)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_RESIDUAL_SCALE = 0.2
_SLOPE = 0.2  # LeakyReLU's slope below zero


@dataclass(frozen=True, kw_only=True)
class UpscalerConfig:
    """Shape of an RRDBNet: moves `shuffle` pixels per side into channels, then doubles the size `doublings` times."""

    features: int = 64
    growth: int = 32
    blocks: int = 23
    doublings: int = 2
    shuffle: int = 1

    @property
    def scale(self) -> int:
        return 2**self.doublings // self.shuffle


class RRDBNet(nn.Module):
    """Pictures [N, 3, H, W] in 0..1 -> [N, 3, scale * H, scale * W], not clipped; H and W: multiples of `shuffle`."""

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.features
        self.conv_first = _conv(3 * config.shuffle**2, width)
        self.body = nn.Sequential(*(_RRDB(width, config.growth) for _ in range(config.blocks)))
        self.conv_body = _conv(width, width)
        self.conv_up = nn.ModuleList(_conv(width, width) for _ in range(config.doublings))
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(F.pixel_unshuffle(x, self.config.shuffle))
        x = x + self.conv_body(self.body(x))
        for conv in self.conv_up:
            x = _active(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(_active(self.conv_hr(x)))


class _RRDB(nn.Module):
    """Three dense blocks with an outer skip connection."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (_DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + _RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class _DenseBlock(nn.Module):
    """Five convolutions, each applied to the input and all earlier results."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (_conv(width + i * growth, growth) for i in range(4))
        self.conv5 = _conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, _active(conv(seen))], dim=1)
        return x + _RESIDUAL_SCALE * self.conv5(seen)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)
