"""The T2I-Adapter: a small network that turns a hint picture into one feature map for each level of a UNet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Shape of a T2I-Adapter.

    `hint_channels` is 3, or 1 for grey hints. The hint is cut into squares of `square` pixels, one for each cell.
    `halved` tells which blocks halve the picture first. `inner` is the width inside a block; None for the level's own.
    """

    channels: tuple[int, ...]
    halved: tuple[bool, ...]
    hint_channels: int = 3
    square: int = 8
    res_blocks: int = 2
    inner: tuple[int, ...] | None = None


class AdapterResBlock(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block2(functional.relu(self.block1(x)))


class AdapterBlock(nn.Module):
    """One level. Light adapters work at a smaller width between two 1x1 convolutions."""

    def __init__(self, before: int, config: AdapterConfig, level: int) -> None:
        super().__init__()
        channels = config.channels[level]
        light = config.inner is not None
        width = config.inner[level] if config.inner else channels
        self.halved = config.halved[level]
        self.in_conv = nn.Conv2d(before, width, 1) if light or before != width else nn.Identity()
        kernel = 3 if light else 1
        self.resnets = nn.Sequential(*[AdapterResBlock(width, kernel) for _ in range(config.res_blocks)])
        self.out_conv = nn.Conv2d(width, channels, 1) if light else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.halved:
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        return self.out_conv(self.resnets(self.in_conv(x)))


class T2IAdapter(nn.Module):
    """T2I-Adapter (Mou et al. 2023, arXiv 2302.08453), with diffusers' names."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        cut = config.hint_channels * config.square**2
        self.conv_in = nn.Conv2d(cut, config.channels[0], 3, padding=1) if config.inner is None else nn.Identity()
        first = config.channels[0] if config.inner is None else cut
        before = (first, *config.channels[:-1])
        self.body = nn.ModuleList([AdapterBlock(width, config, level) for level, width in enumerate(before)])

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """Returns one feature map for each block, for hint [N, 3, H, W] in 0..1. Odd sizes are rounded up."""
        if self.config.hint_channels == 1:
            hint = hint.mean(1, keepdim=True)
        square = self.config.square
        missing = [-side % square for side in hint.shape[-2:]]
        hint = functional.pad(hint, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else hint
        x = self.conv_in(functional.pixel_unshuffle(hint, square))
        features: list[Tensor] = []
        for block in self.body:
            x = block(x)
            features.append(x)
        return tuple(features)
