"""Convolution with its epilogue: y = act(conv2d(x, w) + b + vector[:, :, None, None] + residual), NHWC in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from modules.stable_fast.kernels.accumulation import product_key
from modules.stable_fast.kernels.activations import activate
from modules.stable_fast.kernels.candidates import Candidates
from modules.stable_fast.kernels.conv.cudnn_graph import cudnn_graph_conv, cudnn_graph_ranks
from modules.stable_fast.kernels.conv.implicit_matmul import CONV_TILES, Epilogue, launch_conv
from modules.stable_fast.kernels.conv.implicit_matmul_tma import TMA_CONV_TILES, launch_tma_conv
from modules.stable_fast.kernels.conv.libraries import cudnn_conv, patches_conv, pointwise_conv
from modules.stable_fast.kernels.devices import card_class, uses_kernels
from modules.stable_fast.kernels.linear.cublaslt import cublaslt_ranks, has_cublaslt
from modules.stable_fast.kernels.memory_layout import empty_channels_last, to_channels_last
from modules.stable_fast.kernels.registry import register, run_chosen


def conv2d_epilogue_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    y = F.conv2d(x, weight, bias, stride, padding)
    if vector is not None:
        y = y + vector[:, :, None, None]
    if residual is not None:
        y = y + residual
    return to_channels_last(activate(y, activation))


def conv_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


_Conv = Callable[[Tensor, Tensor, Epilogue, int, int], Tensor]


def _pointwise(
    x: Tensor, weight: Tensor, epilogue: Epilogue, stride: int, padding: int, *, rank: int | None = None
) -> Tensor:
    return pointwise_conv(x, weight, epilogue, rank=rank)


_TILES: dict[str, _Conv] = {tile.name: partial(launch_conv, tile=tile) for tile in CONV_TILES}
_HOPPER: dict[str, _Conv] = {tile.name: partial(launch_tma_conv, tile=tile) for tile in TMA_CONV_TILES}
_CUDNN: dict[str, _Conv] = {
    "cudnn": partial(cudnn_conv, benchmark=False),
    "cudnn_benchmark": partial(cudnn_conv, benchmark=True),
}
# Not used if each sample has its own vector: cuDNN 9.19 builds such graphs, but one of them read misaligned addresses.
_CUDNN_GRAPHS: dict[str, _Conv] = {
    f"cudnn_graph_{rank + 1}": partial(cudnn_graph_conv, rank=rank) for rank in cudnn_graph_ranks()
}

# These only handle 1x1 convolutions, or convolutions with few output pixels, so that gathered patches stay small. cuDNN
# and our own tiles handle any convolution.
_POINTWISE: dict[str, _Conv] = {
    "cublas": _pointwise,
    **{f"cublaslt_{rank + 1}": partial(_pointwise, rank=rank) for rank in cublaslt_ranks()},
}
_PATCHES: dict[str, _Conv] = {
    "cublas_patches": patches_conv,
    **{f"cublaslt_patches_{rank + 1}": partial(patches_conv, rank=rank) for rank in cublaslt_ranks()},
}
MAX_PATCH_ROWS = 2048


def implementations_for(
    x: Tensor, weight: Tensor, stride: int, padding: int, *, one_vector: bool = True
) -> tuple[dict[str, _Conv], tuple[str, ...]]:
    """The candidates for a convolution, and the names that are tried in turn without tuning."""
    kernel, rows = tuple(weight.shape[2:]), x.shape[0] * x.shape[2] * x.shape[3] // stride**2
    if kernel == (1, 1) and stride == 1 and padding == 0:
        chain = ("cublaslt_1", "cublas") if rows <= 4096 and has_cublaslt() else ("cublas",)
        return Candidates(_POINTWISE, _TILES, _HOPPER).on(card_class(x)), chain
    libraries = _CUDNN | (_CUDNN_GRAPHS if one_vector else {})
    if rows <= MAX_PATCH_ROWS and kernel[0] == kernel[1]:
        libraries = _PATCHES | libraries
    return Candidates(libraries, _TILES, _HOPPER).on(card_class(x)), ("cudnn", CONV_TILES[0].name)


def _conv2d_epilogue(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    if not uses_kernels(x):
        return conv2d_epilogue_reference(x, weight, bias, vector, residual, stride, padding, activation)
    x, weight = to_channels_last(x), to_channels_last(weight)
    residual = None if residual is None else to_channels_last(residual)
    epilogue = Epilogue(bias, vector, residual, activation)
    each = vector is not None and vector.shape[0] > 1  # each sample has its own vector, instead of one for all
    present = (bias is not None, "each" if each else vector is not None, residual is not None)
    height, width = weight.shape[2:]
    kernel = height if height == width else f"{height}x{width}"
    key = (*x.shape, weight.shape[0], kernel, stride, padding, *present, activation, product_key(x))
    candidates, chain = implementations_for(x, weight, stride, padding, one_vector=not each)
    args = (x, weight, epilogue, stride, padding)
    reference = partial(conv2d_epilogue_reference, x, weight, bias, vector, residual, stride, padding, activation)
    return run_chosen("conv2d_epilogue", key, candidates, chain, args, reference)


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    vector: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    height = conv_output_size(x.shape[2], weight.shape[2], stride, padding)
    width = conv_output_size(x.shape[3], weight.shape[3], stride, padding)
    return empty_channels_last((x.shape[0], weight.shape[0], height, width), x)


register(
    "conv2d_epilogue(Tensor x, Tensor weight, Tensor? bias, Tensor? vector, Tensor? residual, int stride, "
    "int padding, str activation) -> Tensor",
    _conv2d_epilogue,
    _fake,
)
