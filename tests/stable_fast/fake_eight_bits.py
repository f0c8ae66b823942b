"""An oracle for products in eight bits: the eager UNet, whose layers round their weights and inputs as they should.

Written in plain PyTorch, from the documentation and not from our operations: which layers, which scales, which range.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANGE = {"fp8": 448.0, "int8": 127.0}
HEADROOM = {"fp8": 2.0, "int8": 1.0}  # of scales that the first picture tells
# By names of the UNet's layers. What is not named stays.
BY_TOKEN = r"attn1\.to_[qkv]$|attn2\.to_q$|to_out\.0$|ff\.net\.0\.proj$"
STATIC = {"fp8": r"ff\.net\.2$|$^", "int8": r"$^"}
CONVOLUTIONS = r"in_layers\.2$|out_layers\.3$|\.op$"


def rounded(x: Tensor, scale: Tensor, kind: str) -> Tensor:
    y = x / scale
    if kind == "int8":
        return y.round().clamp(-127, 127) * scale
    return y.clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def by_row(x: Tensor, kind: str) -> Tensor:
    """Each last dimension with a scale of its own."""
    return rounded(x, x.abs().amax(-1, keepdim=True).clamp_min(1e-30) * (1.0 / RANGE[kind]), kind)


def by_channel(weight: Tensor, kind: str) -> Tensor:
    return by_row(weight.flatten(1), kind).view_as(weight)


class FakeEightBits:
    """Makes a UNet round. While `calibrates`, scales of whole inputs follow the largest value."""

    def __init__(self, unet: nn.Module, kind: str) -> None:
        self.kind, self.calibrates = kind, True
        self.most: dict[str, Tensor] = {}
        self.layers: list[str] = []
        names = {name: layer for name, layer in unet.named_modules() if name}
        last = [name for name in names if name.endswith("out_layers.3")][-1]
        for name, layer in names.items():
            forward: Callable[[Tensor], Tensor] | None = None
            if re.search(BY_TOKEN, name) or (re.search(r"ff\.net\.2$", name) and kind == "int8"):
                forward = self._by_token(layer)
            elif re.search(STATIC[kind], name):
                forward = self._static(name, layer, F.linear)
            elif re.search(CONVOLUTIONS, name) and name != last:
                forward = self._static(name, layer, self._convolve(layer))
            elif type(layer).__name__ == "Upsample":
                forward = self._doubling(name, layer)
            if forward is not None:
                layer.forward = forward
                self.layers.append(name)

    def _by_token(self, layer: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: F.linear(by_row(x, self.kind), by_channel(layer.weight, self.kind), layer.bias)

    def _convolve(self, layer: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda x, weight, bias: F.conv2d(x, weight, bias, layer.stride, layer.padding)

    def _static(self, name: str, layer: Any, product: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: product(self._whole(name, x), by_channel(layer.weight, self.kind), layer.bias)

    def _doubling(self, name: str, layer: Any) -> Callable[..., Tensor]:
        """The four pixels that each pixel becomes see 2x2 pixels of the small picture, by sums of the 3x3 weights."""

        def forward(x: Tensor, *_: Any) -> Tensor:
            q, weight = F.pad(self._whole(name, x), (1, 1, 1, 1)), layer.conv.weight
            height, width = x.shape[2:]
            out = x.new_empty(x.shape[0], len(weight), 2 * height, 2 * width)
            for row in (0, 1):
                for column in (0, 1):
                    tall = [weight[:, :, :1], weight[:, :, 1:].sum(2, True)]
                    tall = tall if row == 0 else [weight[:, :, :2].sum(2, True), weight[:, :, 2:]]
                    both = torch.cat(tall, 2)
                    wide = [both[..., :1], both[..., 1:].sum(3, True)]
                    wide = wide if column == 0 else [both[..., :2].sum(3, True), both[..., 2:]]
                    small = by_channel(torch.cat(wide, 3), self.kind)
                    part = q[:, :, row : row + height + 1, column : column + width + 1]
                    out[:, :, row::2, column::2] = F.conv2d(part, small, layer.conv.bias)
            return out

        return forward

    def _whole(self, name: str, x: Tensor) -> Tensor:
        most = x.abs().amax() * HEADROOM[self.kind]
        if self.calibrates:
            self.most[name] = torch.maximum(self.most.get(name, most), most)
        return rounded(x, self.most[name] / RANGE[self.kind], self.kind)


def with_extremes(unet: nn.Module) -> nn.Module:
    """Weights a hundred times as large, a channel of outliers before a first convolution, zeros before a second."""
    for name, weight in unet.named_parameters():
        if name.endswith(("attn1.to_q.weight", "proj.weight", "in_layers.2.weight")):
            weight.data[::7] *= 100
        elif name.endswith("in_layers.0.weight"):
            weight.data[3] = 300
        elif re.search(r"out_layers\.0\.(weight|bias)$", name):
            weight.data.zero_()
    return unet


@torch.no_grad()
def with_outliers(unet: nn.Module, times: float) -> nn.Module:
    """The same function, with channels so many times as large before products, and their weights as much smaller.

    `times` is a power of two. So it is exactly the same, but for what the large channels do to scales.
    """
    for name, weight in unet.named_parameters():
        if re.search(r"blocks\.\d+\.norm[123]\.(weight|bias)$", name):
            weight[3] *= times
        elif re.search(r"attn1\.to_[qkv]\.weight$|attn2\.to_q\.weight$", name):
            weight[:, 3] /= times
        elif re.search(r"ff\.net\.0\.proj\.(weight|bias)$", name):
            weight[5] *= times
            if weight.dim() == 2:
                weight[:, 3] /= times
        elif name.endswith("ff.net.2.weight"):
            weight[:, 5] /= times
    return unet
