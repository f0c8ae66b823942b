"""Convolution, bias, vector, residual and activation as one cuDNN graph, through the optional nvidia-cudnn-frontend.

One plan is built for each combination of shape, dtype, epilogue and rank in cuDNN's list of engines.
"cudnn_graph_1" is cuDNN's first choice, "cudnn_graph_2" its second; the tuner times them like any other implementation.
Execution uses the current stream and a workspace from PyTorch's allocator, so it can be captured.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.kernels.accumulation import sums_in_half
from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue
from modules.stable_fast.kernels.memory_layout import empty_channels_last
from modules.stable_fast.kernels.refusals import Unsupported, unsupported_on_error

HAS_CUDNN_FRONTEND = importlib.util.find_spec("cudnn") is not None
MOST_ENGINES = 4  # how many in cuDNN's list are worth timing
OUTPUT_UID = 100
ADDRESS_ALIGNMENT = 16  # bytes

Strided = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class ConvSignature:
    """Everything a plan depends on: sizes and strides of the operands (None for an absent one), and the options."""

    image: Strided
    weight: Strided
    bias: Strided | None
    vector: Strided | None
    residual: Strided | None
    output: Strided
    dtype: torch.dtype
    stride: int
    padding: int
    activation: str
    device_index: int
    rank: int
    half_sums: bool


@dataclass(frozen=True)
class ConvPlan:
    graph: Any
    rank: int
    workspace_bytes: int


def cudnn_graph_ranks() -> range:
    """Positions in cuDNN's list of engines, best first. Empty without the frontend package."""
    return range(MOST_ENGINES) if HAS_CUDNN_FRONTEND else range(0)


@cache
def _frontend() -> Any:
    """Imports the package, which then looks for cuDNN itself."""
    try:
        import cudnn  # pyright: ignore[reportMissingImports]  # optional: requirements-extra.txt
    except (ImportError, OSError, RuntimeError) as error:
        raise Unsupported(f"nvidia-cudnn-frontend does not load: {error}") from error
    return cudnn


@cache
def _handle(device_index: int) -> Any:
    cudnn = _frontend()
    with torch.cuda.device(device_index):
        return cudnn.create_handle()


def _describe(graph: Any, uid: int, strided: Strided, dtype: Any) -> Any:
    return graph.tensor(name=f"operand_{uid}", dim=list(strided[0]), stride=list(strided[1]), data_type=dtype, uid=uid)


def _build_graph(signature: ConvSignature) -> Any:
    """Operands are numbered from 1: image, weight, then the addends that are present."""
    cudnn = _frontend()
    dtype = {torch.float16: cudnn.data_type.HALF, torch.bfloat16: cudnn.data_type.BFLOAT16}[signature.dtype]
    single = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=dtype, intermediate_data_type=single, compute_data_type=single,
        handle=_handle(signature.device_index),
    )  # fmt: skip
    image = _describe(graph, 1, signature.image, dtype)
    weight = _describe(graph, 2, signature.weight, dtype)
    padding, stride = [signature.padding] * 2, [signature.stride] * 2
    sums = dtype if signature.half_sums else single
    y = graph.conv_fprop(
        image, weight, padding=padding, stride=stride, dilation=[1, 1], compute_data_type=sums
    )  # fmt: skip
    addends = [a for a in (signature.bias, signature.vector, signature.residual) if a is not None]
    for uid, addend in enumerate(addends, start=3):
        y = graph.add(y, _describe(graph, uid, addend, dtype))
    if signature.activation == "silu":
        y = graph.mul(y, graph.sigmoid(y))
    y.set_output(True).set_data_type(dtype).set_dim(list(signature.output[0])).set_stride(list(signature.output[1]))
    y.set_uid(OUTPUT_UID)
    graph.validate()
    return graph


@lru_cache(maxsize=512)
def _plan(signature: ConvSignature) -> ConvPlan:
    cudnn = _frontend()
    try:
        graph = _build_graph(signature)
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.B])
        if graph.get_execution_plan_count() <= signature.rank:
            raise Unsupported(f"cuDNN offers fewer than {signature.rank + 1} engines for {signature}")
        graph.build_plan_at_index(signature.rank)
        workspace = graph.get_workspace_size_plan_at_index(signature.rank)
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
        raise Unsupported(f"cuDNN has no engine for {signature}: {error}") from error
    return ConvPlan(graph, signature.rank, workspace)


def _strided(x: Tensor) -> Strided:
    return tuple(x.shape), tuple(x.stride())


def _as_image(vector: Tensor | None) -> Strided | None:
    """A [K] or [N, K] addend as an image of one pixel."""
    if vector is None:
        return None
    rows = vector if vector.dim() == 2 else vector[None]
    return (*rows.shape, 1, 1), (max(rows.stride(0), rows.shape[1]), 1, rows.shape[1], rows.shape[1])


def cudnn_graph_conv(
    x: Tensor, weight: Tensor, epilogue: Epilogue, stride: int, padding: int, *, rank: int = 0
) -> Tensor:
    """act(conv2d(x, weight) + bias + vector + residual) in one cuDNN execution."""
    cudnn = _frontend()
    if epilogue.activation not in ("none", "silu"):
        raise Unsupported(f"there is no cuDNN graph for activation {epilogue.activation}")
    size = [(x.shape[i] + 2 * padding - weight.shape[i]) // stride + 1 for i in (2, 3)]
    y = empty_channels_last((x.shape[0], weight.shape[0], *size), x)
    residual = None if epilogue.residual is None else _strided(epilogue.residual)
    plan = _plan(
        ConvSignature(
            _strided(x), _strided(weight), _as_image(epilogue.bias), _as_image(epilogue.vector), residual, _strided(y),
            x.dtype, stride, padding, epilogue.activation, x.device.index, rank,
            sums_in_half(x),
        )
    )  # fmt: skip
    addends = (epilogue.bias, epilogue.vector, epilogue.residual)
    operands = [x, weight, *(addend for addend in addends if addend is not None)]
    if any(operand.data_ptr() % ADDRESS_ALIGNMENT for operand in operands):
        raise Unsupported("cuDNN's fused engines need addresses that are multiples of 16 bytes")
    buffers = dict(enumerate(operands, start=1)) | {OUTPUT_UID: y}
    workspace = torch.empty(max(1, plan.workspace_bytes), dtype=torch.uint8, device=x.device)
    handle = _handle(x.device.index)
    with unsupported_on_error("cuDNN"):
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream(x.device).cuda_stream)
        plan.graph.execute_plan_at_index(buffers, workspace, plan.rank, handle=handle)
    return y
