"""Convolutions by NVIDIA's libraries with our epilogue: cuDNN through PyTorch, or cuBLAS over gathered patches.

cuDNN runs the bare convolution, because PyTorch would add the bias in a second kernel anyway. `launch_epilogue` then
applies bias, vector, residual and activation in one in-place pass.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import by_cublas
from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue
from modules.stable_fast.kernels.devices import runs_kernels
from modules.stable_fast.kernels.epilogue import launch_epilogue
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.linear.cublaslt import cublaslt_matmul
from modules.stable_fast.kernels.memory_layout import pixel_rows, to_channels_last
from modules.stable_fast.kernels.refusals import require_32_bit, unsupported_on_error
from modules.stable_fast.kernels.triton_import import jit_for_any, next_power_of_2, tl, triton


def bare_conv(x: Tensor, weight: Tensor, stride: int, padding: int, *, benchmark: bool) -> Tensor:
    """cuDNN's convolution. With `benchmark`, cuDNN times its own algorithms at the first call for a shape."""
    with unsupported_on_error("cuDNN"):
        y = torch.ops.aten.cudnn_convolution(
            x, weight, [padding, padding], [stride, stride], [1, 1], 1, benchmark, False, True
        )  # fmt: skip
    return to_channels_last(y)


def cudnn_conv(x: Tensor, weight: Tensor, epilogue: Epilogue, stride: int, padding: int, *, benchmark: bool) -> Tensor:
    y = bare_conv(x, weight, stride, padding, benchmark=benchmark)
    return launch_epilogue(y, epilogue.bias, epilogue.vector, epilogue.residual, epilogue.activation)


@jit_for_any("M", "H", "W", "OH", "OW")
def _patches_kernel(
    x_ptr, y_ptr, M, H, W, C, OH, OW, STRIDE, PAD,
    KH: tl.constexpr, KW: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tap = tl.program_id(1)
    sample = row // (OH * OW)
    y = row // OW % OH * STRIDE - PAD + tap // KW
    x = row % OW * STRIDE - PAD + tap % KW
    inside = (row < M) & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    c = tl.arange(0, BLOCK_C)
    source = (((sample * H + y) * W + x) * C)[:, None] + c[None, :]
    value = tl.load(x_ptr + source, mask=inside[:, None] & (c < C)[None, :], other=0.0)
    target = (row.to(tl.int64) * (KH * KW) + tap) * C
    tl.store(y_ptr + target[:, None] + c[None, :], value, mask=(row < M)[:, None] & (c < C)[None, :])


def gather_patches(x: Tensor, kernel: int, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
    """[N * OH * OW, kernel^2 * C]: every output pixel's inputs side by side, in the order of a channels_last weight."""
    assert runs_kernels(x) and x.is_contiguous(memory_format=torch.channels_last)
    require_32_bit(x)
    batch, channels, height, width = x.shape
    rows = batch * size[0] * size[1]
    y = x.new_empty((rows, kernel * kernel * channels))
    launch_kernel(
        _patches_kernel, (triton.cdiv(rows, 2), kernel * kernel),
        x, y, rows, height, width, channels, *size, stride, padding, KH=kernel, KW=kernel, ROWS=2,
        BLOCK_C=next_power_of_2(channels), num_warps=4,
    )  # fmt: skip
    return y


def patches_conv(
    x: Tensor, weight: Tensor, epilogue: Epilogue, stride: int, padding: int, *, rank: int | None = None
) -> Tensor:
    """A matrix product over patches: faster for few output pixels and deep weights, since cuBLAS splits the depth."""
    kernel = weight.shape[2]
    size = tuple((extent + 2 * padding - kernel) // stride + 1 for extent in x.shape[2:])
    patches = gather_patches(x, kernel, stride, padding, (size[0], size[1]))
    matrix = weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
    return _product(patches, matrix, epilogue, (x.shape[0], *size), rank)


def pointwise_conv(x: Tensor, weight: Tensor, epilogue: Epilogue, *, rank: int | None = None) -> Tensor:
    """A 1x1 convolution is a matrix product over the pixels."""
    return _product(pixel_rows(x), weight.flatten(1), epilogue, (x.shape[0], *x.shape[2:]), rank)


def _product(rows: Tensor, matrix: Tensor, epilogue: Epilogue, shape: tuple[int, ...], rank: int | None) -> Tensor:
    """The image of `shape` (N, H, W) from a product over its pixels, by cuBLASLt's suggestion `rank` or by cuBLAS."""
    residual = epilogue.residual
    if rank is None:
        with by_cublas(rows):
            y = F.linear(rows, matrix, epilogue.bias)
    else:
        flat = None if residual is None else pixel_rows(residual)
        y, residual = cublaslt_matmul(rows, matrix, epilogue.bias, flat, rank=rank), None
    y = y.view(*shape, -1).permute(0, 3, 1, 2)
    return launch_epilogue(y, None, epilogue.vector, residual, epilogue.activation)
