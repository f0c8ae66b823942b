"""Matrix products by cuBLASLt with bias and residual in the same kernel: y = x W^T + bias + residual, or with GELU.

PyTorch's `addmm` takes either a bias or a matrix to add, not both. cuBLASLt computes D = A B + beta C + bias at once
(NVIDIA, cuBLAS documentation, cublasLtMatmul). Through ctypes, we call the library already loaded by PyTorch, so
nothing has to be built. cuBLASLt's matrices are column-major: y^T = W x^T. Its GELU is the approximation by tanh.
On Hopper, it multiplies e4m3 with a scale for each row of x and of W.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_float, c_int, c_int8, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache, lru_cache
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from modules.stable_fast.kernels.accumulation import sums_in_half
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.scaled.scales import Scales

# How many of the library's suggestions are worth timing.
MOST_SUGGESTIONS = 8
WORKSPACE_BYTES = 32 << 20

# Numbers from cublasLt.h, cublas_api.h and library_types.h.
_COMPUTE_16F, _COMPUTE_32F, _REAL_32F, _REAL_16F = 64, 68, 0, 2
_HALF_ONE = 0x3C00  # 1.0 in the bits of fp16
_TYPES = {torch.float16: 2, torch.bfloat16: 14, torch.float8_e4m3fn: 28}
_TRANSPOSE_A, _EPILOGUE, _BIAS_POINTER, _BIAS_TYPE = 3, 7, 8, 26
_EPILOGUE_BIAS, _EPILOGUE_GELU = 4, 32  # both at once: their sum
_WEIGHT_SCALES, _X_SCALES, _FAST_SUMS, _SCALES_OF_WEIGHT, _SCALES_OF_X = 17, 18, 25, 31, 32
_FOR_EACH_ROW = 3
_MAX_WORKSPACE, _ALIGNMENT_A = 1, 5
_MAX_ALIGNMENT = 256


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


class MatmulSignature(NamedTuple):
    """Everything the choice of an algorithm depends on: y [m, n], x [m, k], row strides, operands and alignments."""

    m: int
    n: int
    k: int
    x_stride: int
    weight_stride: int
    dtype: torch.dtype
    result: torch.dtype
    has_bias: bool
    has_residual: bool
    gelu: bool
    alignments: tuple[int, int, int, int]
    device_index: int
    rank: int
    half_sums: bool


class MatmulPlan(NamedTuple):
    operation: c_void_p
    weight: c_void_p
    x: c_void_p
    y: c_void_p
    algorithm: _Heuristic
    lock: Lock  # the addresses of bias and scales are written into the operation before each call


@cache
def _library() -> ctypes.CDLL | None:
    """The loaded library, or None if PyTorch comes without it (CPU builds, ROCm)."""
    if torch.version.cuda is None:
        return None
    major = torch.version.cuda.partition(".")[0]
    name = f"cublasLt64_{major}.dll" if os.name == "nt" else f"libcublasLt.so.{major}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def has_cublaslt() -> bool:
    return _library() is not None


def cublaslt_ranks() -> range:
    """Positions in the library's list of suggestions, best first. Empty without the library."""
    return range(MOST_SUGGESTIONS) if has_cublaslt() else range(0)


def _call(name: str, *arguments: object) -> None:
    status = getattr(_library(), name)(*arguments)
    if status:
        raise Unsupported(f"{name} answers with status {status}")


@cache
def _handle(device_index: int) -> c_void_p:
    handle = c_void_p()
    with torch.cuda.device(device_index):
        _call("cublasLtCreate", byref(handle))
    return handle


def _layout(dtype: torch.dtype, rows: int, columns: int, stride: int) -> c_void_p:
    layout = c_void_p()
    _call(
        "cublasLtMatrixLayoutCreate", byref(layout), c_int(_TYPES[dtype]), c_uint64(rows), c_uint64(columns),
        c_int64(stride),
    )  # fmt: skip
    return layout


_Value = c_int8 | c_int | c_uint32 | c_uint64 | c_void_p


def _set(setter: str, descriptor: c_void_p, attribute: int, value: _Value) -> None:
    _call(setter, descriptor, c_int(attribute), byref(value), c_size_t(ctypes.sizeof(value)))


def _operation(signature: MatmulSignature) -> c_void_p:
    operation = c_void_p()
    sums, scale = (_COMPUTE_16F, _REAL_16F) if signature.half_sums else (_COMPUTE_32F, _REAL_32F)
    _call("cublasLtMatmulDescCreate", byref(operation), c_int(sums), c_int(scale))
    _set("cublasLtMatmulDescSetAttribute", operation, _TRANSPOSE_A, c_int(1))
    if signature.has_bias or signature.gelu:
        epilogue = _EPILOGUE_BIAS * signature.has_bias + _EPILOGUE_GELU * signature.gelu
        _set("cublasLtMatmulDescSetAttribute", operation, _EPILOGUE, c_int(epilogue))
    if signature.has_bias:
        _set("cublasLtMatmulDescSetAttribute", operation, _BIAS_TYPE, c_int(_TYPES[signature.result]))
    if signature.dtype == torch.float8_e4m3fn:
        _scale(operation)
    return operation


def _scale(operation: c_void_p) -> None:
    """Asks for a scale for each row of both operands. The library suggests nothing before it has their addresses."""
    _set("cublasLtMatmulDescSetAttribute", operation, _FAST_SUMS, c_int8(1))
    for mode, pointer in ((_SCALES_OF_WEIGHT, _WEIGHT_SCALES), (_SCALES_OF_X, _X_SCALES)):
        _set("cublasLtMatmulDescSetAttribute", operation, mode, c_int(_FOR_EACH_ROW))
        _set("cublasLtMatmulDescSetAttribute", operation, pointer, c_void_p(_MAX_ALIGNMENT))


def _suggest(signature: MatmulSignature, operation: c_void_p, layouts: tuple[c_void_p, ...]) -> _Heuristic:
    """The library's suggestion number `rank` for the actual alignments of the operands."""
    preference = c_void_p()
    _call("cublasLtMatmulPreferenceCreate", byref(preference))
    setter = "cublasLtMatmulPreferenceSetAttribute"
    _set(setter, preference, _MAX_WORKSPACE, c_uint64(WORKSPACE_BYTES))
    for operand, alignment in enumerate(signature.alignments):
        _set(setter, preference, _ALIGNMENT_A + operand, c_uint32(alignment))
    suggestions, found = (_Heuristic * MOST_SUGGESTIONS)(), c_int()
    weight, x, y = layouts
    try:
        _call(
            "cublasLtMatmulAlgoGetHeuristic", _handle(signature.device_index), operation, weight, x, y, y, preference,
            c_int(MOST_SUGGESTIONS), suggestions, byref(found),
        )  # fmt: skip
    finally:
        _call("cublasLtMatmulPreferenceDestroy", preference)
    if found.value <= signature.rank or suggestions[signature.rank].state:
        raise Unsupported(f"cuBLASLt offers fewer than {signature.rank + 1} algorithms for {signature}")
    return suggestions[signature.rank]


@lru_cache(maxsize=1024)
def _plan(signature: MatmulSignature) -> MatmulPlan:
    """Plans live as long as the process. There is one for each shape in a network."""
    s = signature
    operation = _operation(s)
    layouts = (
        _layout(s.dtype, s.k, s.n, s.weight_stride),
        _layout(s.dtype, s.k, s.m, s.x_stride),
        _layout(s.result, s.n, s.m, s.n),
    )
    return MatmulPlan(operation, *layouts, _suggest(s, operation, layouts), Lock())


def _alignment(x: Tensor) -> int:
    address = x.data_ptr()
    return min(_MAX_ALIGNMENT, address & -address)


def cublaslt_matmul(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    *,
    rank: int = 0,
    in_place: bool = False,
    gelu: bool = False,
    scales: Scales | None = None,
) -> Tensor:
    """x [M, K], weight [N, K], bias [N], residual [M, N] -> [M, N], in fp16 or bf16, accumulated in fp32
    (or in fp16, see accumulation.py).

    Rows must be contiguous. With `in_place` the result overwrites the residual. GELU comes last, so it goes without a
    residual. With `scales`, x and weight are e4m3. Raises Unsupported if the library has no such algorithm.
    """
    assert not (gelu and residual is not None)
    (m, k), n = x.shape, weight.shape[0]
    assert x.stride(1) == 1 and weight.stride(1) == 1 and weight.shape[1] == k and weight.dtype == x.dtype
    assert residual is None or (residual.is_contiguous() and residual.shape == (m, n))
    assert bias is None or (bias.is_contiguous() and bias.numel() == n)
    result = x.dtype if scales is None else scales.dtype
    y = residual if in_place and residual is not None else x.new_empty((m, n), dtype=result)
    added = y if residual is None else residual
    alignments = (_alignment(weight), _alignment(x), _alignment(added), _alignment(y))
    plan = _plan(
        MatmulSignature(
            m, n, k, x.stride(0), weight.stride(0), x.dtype, result, bias is not None, residual is not None, gelu,
            alignments, x.device.index, rank, sums_in_half(x),
        )
    )  # fmt: skip
    workspace = torch.empty(plan.algorithm.workspace, dtype=torch.uint8, device=x.device)
    one, zero = (c_uint16(_HALF_ONE), c_uint16(0)) if sums_in_half(x) else (c_float(1.0), c_float(0.0))
    beta = zero if residual is None else one
    addresses: dict[int, Tensor] = {}
    if scales is not None:
        scales.check(m, n)
        rows = scales.rows if scales.stride or m == 1 else scales.rows.expand(m).contiguous()
        addresses = {_WEIGHT_SCALES: scales.columns, _X_SCALES: rows}
    with plan.lock:
        for pointer, operand in addresses.items():
            _set("cublasLtMatmulDescSetAttribute", plan.operation, pointer, c_void_p(operand.data_ptr()))
        if bias is not None:
            _set("cublasLtMatmulDescSetAttribute", plan.operation, _BIAS_POINTER, c_void_p(bias.data_ptr()))
        _call(
            "cublasLtMatmul", _handle(x.device.index), plan.operation, byref(one),
            c_void_p(weight.data_ptr()), plan.weight, c_void_p(x.data_ptr()), plan.x, byref(beta),
            c_void_p(added.data_ptr()), plan.y, c_void_p(y.data_ptr()), plan.y, byref(plan.algorithm),
            c_void_p(workspace.data_ptr()), c_size_t(plan.algorithm.workspace),
            c_void_p(torch.cuda.current_stream(x.device).cuda_stream),
        )  # fmt: skip
    return y
