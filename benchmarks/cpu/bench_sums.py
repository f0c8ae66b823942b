"""Measures what sums of products in fp16 cost in quality, emulated on a CPU.

    python -m benchmarks.cpu.bench_sums                    # products at real depths, and pictures of the demo model
    python -m benchmarks.cpu.bench_sums --pictures 0

Three ways are compared: sums in fp32; sums in fp16 over 64 products, and in fp32 over these (our kernels with the
precision fp16-accumulate); sums in fp16 over the whole depth (cuBLAS and cuDNN with it). Each 16 products are summed
exactly and then rounded, as one instruction of a tensor core does it; a library may sum in another order. Operands and
results are rounded to fp16 in all ways. Attention sums in fp32. `relative_error` is that to float64, `largest` that of
the worst element to the largest value. `psnr` is that of whole pictures, in dB, against fp32 and sums in fp32.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.common import write_result
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.images.likeness import difference
from modules.stable_fast.kernels.accumulation import product_reference

TILE = 64  # the depth of our kernels' tiles
# Products of SD1.5 and SDXL: attention and feed-forward of 320 to 1280 channels, 3x3 convolutions of 320 to 2560.
DEPTHS = (320, 640, 1280, 5120, 2880, 11520, 23040)
WAYS = {"sums in fp32": 0, "in fp16 over 64": TILE, "in fp16 over all": -1}
PROMPTS = ("a red circle on a blue background", "a green square on a white background", "two yellow triangles")


def product(x: Tensor, weight: Tensor, depth: int) -> Tensor:
    """x [M, K] weight [N, K]^T, with fp16 operands, in fp32; `depth` as in WAYS."""
    if depth == 0:
        return x.float() @ weight.float().T
    return product_reference(x, weight, x.shape[1] if depth < 0 else depth)


def error_rows() -> Iterator[dict[str, Any]]:
    for k in DEPTHS:
        torch.manual_seed(k)
        x, weight = torch.randn(128, k).half(), (torch.randn(96, k) / math.sqrt(k)).half()
        exact = x.double() @ weight.double().T
        for way, depth in WAYS.items():
            off = product(x, weight, depth).half().double() - exact
            error, largest = (off.norm() / exact.norm()).item(), (off.abs().max() / exact.abs().max()).item()
            print(f"depth {k:6} {way:18} error {error:.1e} largest {largest:.1e}")
            yield {"label": f"depth {k}: {way}", "relative_error": error, "largest": largest}


@contextmanager
def summing(depth: int) -> Iterator[None]:
    """Inside, linear layers and convolutions have fp16 operands and results, and sum as WAYS says."""
    conv2d = F.conv2d

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).half()
        y = product(rows, weight.half(), depth).view(*x.shape[:-1], -1)
        return (y if bias is None else y + bias).half().float()

    def conv(x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, *others: Any) -> Tensor:
        kernel, size = weight.shape[2:], conv2d(x[:, :1], weight[:1, :1], None, stride, padding).shape[2:]
        patches = F.unfold(x.half().float(), tuple(kernel), padding=padding, stride=stride).transpose(1, 2)
        # Each tap is contiguous in the depth, as in a channels-last image.
        taps = patches.unflatten(2, (x.shape[1], -1)).transpose(2, 3).flatten(2)
        return linear(taps, weight.permute(0, 2, 3, 1).flatten(1), bias).transpose(1, 2).unflatten(2, tuple(size))

    with patch.object(F, "linear", linear), patch.object(F, "conv2d", conv):
        yield


def draw(number: int, depth: int | None) -> list[Image.Image]:
    """The demo model's pictures; with `depth`, its UNet computes as `summing` says."""
    session = Session(device="cpu", dtype="float32")
    options = [GenerationOptions(prompt=prompt, width=128, height=128, seed=7, steps=10) for prompt in PROMPTS[:number]]
    network: Any = session.model(options[0]).unet.module
    own = network.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with summing(depth or 0):
            return own(*args, **kwargs)

    if depth is not None:
        network.forward = forward
    return [picture.image for each in options for picture in generate(each, session)]


def picture_rows(number: int) -> Iterator[dict[str, Any]]:
    exact = draw(number, None)
    single = draw(number, 0)
    for way, depth in WAYS.items():
        made = single if depth == 0 else draw(number, depth)
        row = {"label": f"pictures: {way}", "pictures": number, "psnr": psnr(made, exact)}
        row |= {} if depth == 0 else {"psnr_to_sums_in_fp32": psnr(made, single)}
        print(row, flush=True)
        yield row


def psnr(made: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    return statistics.median(difference(*pair)[0] for pair in zip(made, others, strict=True))


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> None:
    rows = [*error_rows(), *(picture_rows(arguments.pictures) if arguments.pictures else ())]
    write_result("sums-in-fp16-emulated", rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3, choices=range(len(PROMPTS) + 1))
    run(parser.parse_args())


if __name__ == "__main__":
    main()
