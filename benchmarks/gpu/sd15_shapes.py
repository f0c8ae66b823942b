"""Lists every call of every fused op in one SD1.5 UNet step: (label, op, arguments, equivalent in eager PyTorch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

UNET_LEVELS = ((320, 1, 40), (640, 2, 80), (1280, 4, 160))  # channels, downscale, head size
CONVS = (  # Cin, Cout, downscale of the input, stride, has time vector, has residual
    (4, 320, 1, 1, False, False), (320, 320, 1, 1, True, False), (320, 320, 1, 1, False, True),
    (320, 320, 1, 2, False, False), (320, 640, 2, 1, True, False), (640, 640, 2, 1, True, False),
    (640, 640, 2, 1, False, True), (640, 640, 2, 2, False, False), (640, 1280, 4, 1, True, False),
    (1280, 1280, 4, 1, True, False), (1280, 1280, 4, 1, False, True), (1280, 1280, 4, 2, False, False),
    (1280, 1280, 8, 1, True, False), (1280, 1280, 8, 1, False, True), (2560, 1280, 8, 1, True, False),
    (2560, 1280, 4, 1, True, False), (1920, 1280, 4, 1, True, False), (1920, 640, 2, 1, True, False),
    (1280, 640, 2, 1, True, False), (960, 640, 2, 1, True, False), (960, 320, 1, 1, True, False),
    (640, 320, 1, 1, True, False), (320, 4, 1, 1, False, False),
)  # fmt: skip
CATS = ((1280, 1280, 1280, 8), (1280, 1280, 1280, 4), (1280, 640, 1280, 4), (1280, 640, 640, 2), (640, 640, 640, 2),
        (640, 320, 640, 2), (640, 320, 320, 1), (320, 320, 320, 1))  # fmt: skip
NORMS = ((320, 1), (320, 2), (640, 2), (640, 4), (1280, 4), (1280, 8))
UPSAMPLES = ((1280, 8), (1280, 4), (640, 2))


@dataclass(frozen=True)
class OpCall:
    label: str
    op: str
    args: tuple[Any, ...]
    eager: Callable[[], Any]
    flops: float


def random_rows(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, device="cuda") * scale).half()


def random_image(*shape: int, scale: float = 1.0) -> Tensor:
    return random_rows(*shape, scale=scale).contiguous(memory_format=torch.channels_last)


def conv_calls(batch: int, latent: int) -> Iterator[OpCall]:
    for cin, cout, down, stride, has_vector, has_residual in CONVS:
        size = latent // down
        x, weight = random_image(batch, cin, size, size), random_image(cout, cin, 3, 3, scale=(9 * cin) ** -0.5)
        bias = random_rows(cout)
        out = size // stride
        vector = random_rows(1, cout) if has_vector else None
        residual = random_image(batch, cout, out, out) if has_residual else None

        def eager(x=x, weight=weight, bias=bias, vector=vector, residual=residual, stride=stride) -> Tensor:
            y = F.conv2d(x, weight, bias, stride, 1)
            y = y if vector is None else y + vector[:, :, None, None]
            return y if residual is None else y + residual

        label = f"conv3x3 {cin}->{cout} @{size} s{stride}" + " vec" * has_vector + " res" * has_residual
        args = (x, weight, bias, vector, residual, stride, 1, "none")
        yield OpCall(label, "conv2d_epilogue", args, eager, 18.0 * batch * out * out * cin * cout)
    for channels, down in ((320, 2), (640, 4)):
        yield pointwise_call(batch, channels, 2 * channels, latent // down, has_residual=False)
    for channels, down, _ in (*UNET_LEVELS, (1280, 8, 160)):
        yield pointwise_call(batch, channels, channels, latent // down, has_residual=True)


def pointwise_call(batch: int, cin: int, cout: int, size: int, *, has_residual: bool) -> OpCall:
    x, weight = random_image(batch, cin, size, size), random_image(cout, cin, 1, 1, scale=cin**-0.5)
    bias = random_rows(cout)
    residual = random_image(batch, cout, size, size) if has_residual else None

    def eager() -> Tensor:
        y = F.conv2d(x, weight, bias)
        return y if residual is None else y + residual

    label = f"conv1x1 {cin}->{cout} @{size}" + " res" * has_residual
    args = (x, weight, bias, None, residual, 1, 0, "none")
    return OpCall(label, "conv2d_epilogue", args, eager, 2.0 * batch * size * size * cin * cout)


def cat_calls(batch: int, latent: int) -> Iterator[OpCall]:
    for ca, cb, cout, down in CATS:
        size, cin = latent // down, ca + cb
        a, b = random_image(batch, ca, size, size), random_image(batch, cb, size, size)
        weight, bias = random_image(cout, cin, 1, 1, scale=cin**-0.5), random_rows(cout)
        gamma, beta = random_rows(cin), random_rows(cin)
        flops = 2.0 * batch * size * size * cin * cout
        yield OpCall(
            f"cat 1x1 {ca}+{cb}->{cout} @{size}", "conv2d_cat_epilogue", (a, b, weight, bias, None),
            lambda a=a, b=b, w=weight, c=bias: F.conv2d(torch.cat((a, b), 1), w, c), flops,
        )  # fmt: skip
        yield OpCall(
            f"cat GroupNorm+SiLU {ca}+{cb} @{size}", "group_norm_silu_cat", (a, b, gamma, beta, 32, 1e-5, True),
            lambda a=a, b=b, g=gamma, c=beta: F.silu(F.group_norm(torch.cat((a, b), 1), 32, g, c)), 0.0,
        )  # fmt: skip
    for channels, down in NORMS:
        size = latent // down
        x, gamma, beta = random_image(batch, channels, size, size), random_rows(channels), random_rows(channels)
        yield OpCall(
            f"GroupNorm+SiLU {channels} @{size}", "group_norm_silu", (x, gamma, beta, 32, 1e-5, True),
            lambda x=x, g=gamma, c=beta: F.silu(F.group_norm(x, 32, g, c)), 0.0,
        )  # fmt: skip
    for channels, down in UPSAMPLES:
        size = latent // down
        x, weight = random_image(batch, channels, size, size), random_image(channels, channels, 3, 3, scale=0.01)
        bias = random_rows(channels)
        prepared = torch.ops.lightdiffusion.prepare_subpixel_weight(weight)
        yield OpCall(
            f"upsample+conv {channels} @{size}", "upsample_conv2d", (x, prepared, bias),
            lambda x=x, w=weight, c=bias: F.conv2d(F.interpolate(x, scale_factor=2.0), w, c, padding=1),
            32.0 * batch * size * size * channels**2,
        )  # fmt: skip


def token_calls(batch: int, latent: int) -> Iterator[OpCall]:
    for channels, down, head in (*UNET_LEVELS, (1280, 8, 160)):
        length, heads = (latent // down) ** 2, channels // head
        x, residual = random_rows(batch, length, channels), random_rows(batch, length, channels)
        gamma, beta, suffix = random_rows(channels), random_rows(channels), f"{channels} x{length}"
        for name, n, k, with_bias, with_residual in (
            ("qkv", 3, 1, False, False), ("q", 1, 1, False, False), ("out+res", 1, 1, True, True),
            ("ff out+res", 1, 4, True, True),
        ):  # fmt: skip
            yield linear_call(f"{name} {suffix}", batch, length, k * channels, n * channels, with_bias, with_residual)
        weight, bias = random_rows(8 * channels, channels, scale=channels**-0.5), random_rows(8 * channels)
        yield OpCall(
            f"geglu {suffix}", "linear_geglu", (x, weight, bias), lambda x=x, w=weight, b=bias: geglu(x, w, b),
            16.0 * batch * length * channels**2,
        )  # fmt: skip
        yield OpCall(
            f"LayerNorm {suffix}", "layer_norm", (x, gamma, beta, 1e-5),
            lambda x=x, g=gamma, b=beta: F.layer_norm(x, g.shape, g, b), 0.0,
        )  # fmt: skip
        yield OpCall(
            f"add+LayerNorm {suffix}", "add_layer_norm", (x, residual, gamma, beta, 1e-5),
            lambda x=x, r=residual, g=gamma, b=beta: F.layer_norm(x + r, g.shape, g, b), 0.0,
        )  # fmt: skip
        yield from attention_calls(batch, length, heads, head)


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    value, gate = F.linear(x, weight, bias).chunk(2, -1)
    return value * F.gelu(gate)


def linear_call(label: str, batch: int, length: int, k: int, n: int, with_bias: bool, with_residual: bool) -> OpCall:
    x, weight = random_rows(batch, length, k), random_rows(n, k, scale=k**-0.5)
    bias = random_rows(n) if with_bias else None
    residual = random_rows(batch, length, n) if with_residual else None

    def eager() -> Tensor:
        y = F.linear(x, weight, bias)
        return y if residual is None else y + residual

    return OpCall(label, "linear_epilogue", (x, weight, bias, residual, "none"), eager, 2.0 * batch * length * k * n)


def attention_calls(batch: int, length: int, heads: int, head: int) -> Iterator[OpCall]:
    width = heads * head
    qkv, q = random_rows(batch, length, 3 * width), random_rows(batch, length, width)
    kv = random_rows(batch, 77, 2 * width)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, head)).transpose(1, 2)

    def attend(*parts: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*map(split, parts)).transpose(1, 2).flatten(2)

    yield OpCall(
        f"self attention d{head} x{length}", "attention_packed_qkv", (qkv, heads, False),
        lambda: attend(*qkv.chunk(3, -1)), 4.0 * batch * length**2 * width,
    )  # fmt: skip
    yield OpCall(
        f"cross attention d{head} x{length}", "attention_packed_kv", (q, kv, heads, False),
        lambda: attend(q, *kv.chunk(2, -1)), 4.0 * batch * length * 77 * width,
    )  # fmt: skip


def all_calls(batch: int = 2, latent: int = 64) -> Iterator[OpCall]:
    yield from conv_calls(batch, latent)
    yield from token_calls(batch, latent)
    yield from cat_calls(batch, latent)
