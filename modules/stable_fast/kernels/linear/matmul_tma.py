"""Triton matrix products for Hopper: act(x W^T + b) + residual and GEGLU, by one persistent kernel.

The tensor memory accelerator copies tiles. Its descriptors are passed by value, which is safe in a captured graph.
Anything past the end of rows, columns or depth is read as zeros and never written. The weight is viewed as
[halves, N, K]. Both halves of GEGLU (value, gate) are loaded together and multiplied in one wgmma, so that one thread
holds both numbers of a column. With `Scales`, operands have 8 bits, and the sums are scaled before the epilogue.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modules.stable_fast.kernels.activations import ACTIVATIONS, activate_in_kernel, gelu
from modules.stable_fast.kernels.devices import multiprocessors, runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.linear.matmul import GROUP_M, empty_result, tile_origin
from modules.stable_fast.kernels.linear.tma_tiles import TmaMatmulTile, serves_tma
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.scaled.kinds import reciprocal, rounded_in_kernel
from modules.stable_fast.kernels.scaled.scales import Scales, is_integer, scale_pointers
from modules.stable_fast.kernels.triton_import import TensorDescriptor, jit, tl, triton


@jit
def _load_epilogue(
    bias_ptr, residual_ptr, row, column, M, N, BM: tl.constexpr, BN: tl.constexpr,
    GEGLU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Bias, gate bias and residual of a tile, zero if absent. Loads issued before a matrix product overlap with it."""
    columns = column + tl.arange(0, BN)
    inside = columns < N
    bias = 0.0
    gate_bias = 0.0
    residual = 0.0
    if HAS_BIAS:
        bias = tl.load(bias_ptr + columns, mask=inside, other=0.0)
        if GEGLU:
            gate_bias = tl.load(bias_ptr + N + columns, mask=inside, other=0.0)
    if HAS_RESIDUAL:
        rows = row + tl.arange(0, BM)
        at = residual_ptr + rows.to(tl.int64)[:, None] * N + columns[None, :]
        residual = tl.load(at, mask=(rows < M)[:, None] & inside[None, :], other=0.0)
    return bias, gate_bias, residual


@jit
def _load_scales(
    row_scale_ptr, row_scale_stride, column_scale_ptr, row, column, M, N, BM: tl.constexpr, BN: tl.constexpr,
    GEGLU: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """The scales of a tile's rows, columns, and gates; one if absent."""
    row_scale = 1.0
    column_scale = 1.0
    gate_scale = 1.0
    if SCALED:
        rows = row + tl.arange(0, BM)
        columns = column + tl.arange(0, BN)
        row_scale = tl.load(row_scale_ptr + rows * row_scale_stride, mask=rows < M, other=0.0)
        column_scale = tl.load(column_scale_ptr + columns, mask=columns < N, other=0.0)
        if GEGLU:
            gate_scale = tl.load(column_scale_ptr + N + columns, mask=columns < N, other=0.0)
    return row_scale, column_scale, gate_scale


@jit
def _finish(
    acc, epilogue, scales, inverse, y_desc, row, column, BM: tl.constexpr, BN: tl.constexpr,
    GEGLU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
    SCALED: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """Applies scales, bias, activation or gate, and residual to one accumulator [BM, halves * BN], and stores it."""
    bias, gate_bias, residual = epilogue
    row_scale, column_scale, gate_scale = scales
    if SCALED:
        acc = acc.to(tl.float32) * row_scale[:, None]
    if GEGLU:
        y, gate = acc.reshape(BM, 2, BN).permute(0, 2, 1).split()
        if SCALED:
            y *= column_scale[None, :]
            gate *= gate_scale[None, :]
        if HAS_BIAS:
            y += bias.to(tl.float32)[None, :]
            gate += gate_bias.to(tl.float32)[None, :]
        y *= gelu(gate)
    else:
        y = acc
        if SCALED:
            y *= column_scale[None, :]
        if HAS_BIAS:
            y += bias.to(tl.float32)[None, :]
        y = activate_in_kernel(y, ACTIVATION)
    if HAS_RESIDUAL:
        y += residual.to(tl.float32)
    if SCALED and y_desc.dtype.primitive_bitwidth == 8:
        y = rounded_in_kernel(y * inverse, INTEGER, WITHIN=False)
    y_desc.store([row, column], y.to(y_desc.dtype))


@jit
def _inverse(result_scale_ptr, y_desc, SCALED: tl.constexpr):
    """The reciprocal of the scale of a result in 8 bits; one for others."""
    inverse = 1.0
    if SCALED and y_desc.dtype.primitive_bitwidth == 8:
        inverse = reciprocal(tl.load(result_scale_ptr))
    return inverse


@jit
def _step(
    acc, acc_extra, x_desc, w_desc, w_extra_desc, row, column, x_k, w_k,
    BN: tl.constexpr, EXTRA: tl.constexpr, BK: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """Adds the product of BK columns of x (from x_k) and of the weight (from w_k) to both accumulators."""
    x = x_desc.load([row, x_k])
    w = w_desc.load([0, column, w_k]).reshape(HALVES * BN, BK)
    acc = tl.dot(x, w.T, acc, out_dtype=acc.dtype)
    if EXTRA:
        w_extra = w_extra_desc.load([0, column + BN, w_k]).reshape(HALVES * EXTRA, BK)
        acc_extra = tl.dot(x, w_extra.T, acc_extra, out_dtype=acc_extra.dtype)
    return acc, acc_extra


@jit
def _tma_kernel(
    x_desc, x2_desc, w_desc, w_extra_desc, bias_ptr, residual_ptr, row_scale_ptr, column_scale_ptr, result_scale_ptr,
    y_desc, y_extra_desc, M, N, K, K2, row_scale_stride,
    BM: tl.constexpr, BN: tl.constexpr, EXTRA: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    TWO: tl.constexpr, GEGLU: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr, SCALED: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    HALVES: tl.constexpr = 2 if GEGLU else 1
    # In a flattened loop, the loads of the next tile run during the epilogue of this one. But ptxas would
    # serialise the wgmmas of two accumulators, a residual would load late, and two inner loops cannot be flattened.
    FLATTEN: tl.constexpr = EXTRA == 0 and not HAS_RESIDUAL and not TWO
    tiles = tl.cdiv(M, BM) * tl.cdiv(N, BN + EXTRA)
    inverse = _inverse(result_scale_ptr, y_desc, SCALED)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        tile_m, tile_n = tile_origin(tile, M, N, BM, BN + EXTRA, GROUP)
        row = tile_m * BM
        column = tile_n * (BN + EXTRA)
        if not FLATTEN:
            epilogue = _load_epilogue(
                bias_ptr, residual_ptr, row, column, M, N, BM, BN, GEGLU, HAS_BIAS, HAS_RESIDUAL
            )  # fmt: skip
            scales = _load_scales(
                row_scale_ptr, row_scale_stride, column_scale_ptr, row, column, M, N, BM, BN, GEGLU, SCALED
            )  # fmt: skip
        acc = tl.zeros((BM, HALVES * BN), dtype=tl.int32 if INTEGER else tl.float32)
        acc_extra = 0.0
        if EXTRA:
            acc_extra = tl.zeros((BM, HALVES * EXTRA), dtype=tl.int32 if INTEGER else tl.float32)
            epilogue_extra = _load_epilogue(
                bias_ptr, residual_ptr, row, column + BN, M, N, BM, EXTRA, GEGLU, HAS_BIAS, HAS_RESIDUAL
            )  # fmt: skip
            scales_extra = _load_scales(
                row_scale_ptr, row_scale_stride, column_scale_ptr, row, column + BN, M, N, BM, EXTRA, GEGLU, SCALED
            )  # fmt: skip
        for k in range(0, K, BK):
            acc, acc_extra = _step(
                acc, acc_extra, x_desc, w_desc, w_extra_desc, row, column, k, k, BN, EXTRA, BK, HALVES
            )  # fmt: skip
        if TWO:  # past K the first input is read as zeros, so the weight there does not matter
            for k in range(0, K2, BK):
                acc, acc_extra = _step(
                    acc, acc_extra, x2_desc, w_desc, w_extra_desc, row, column, k, K + k, BN, EXTRA, BK, HALVES
                )  # fmt: skip
        if FLATTEN:  # loaded before the loop, these would take registers for every stage of the pipeline
            epilogue = _load_epilogue(
                bias_ptr, residual_ptr, row, column, M, N, BM, BN, GEGLU, HAS_BIAS, HAS_RESIDUAL
            )  # fmt: skip
            scales = _load_scales(
                row_scale_ptr, row_scale_stride, column_scale_ptr, row, column, M, N, BM, BN, GEGLU, SCALED
            )  # fmt: skip
        _finish(
            acc, epilogue, scales, inverse, y_desc, row, column, BM, BN, GEGLU, HAS_BIAS, HAS_RESIDUAL,
            ACTIVATION, SCALED, INTEGER,
        )  # fmt: skip
        if EXTRA:
            _finish(
                acc_extra, epilogue_extra, scales_extra, inverse, y_extra_desc, row, column + BN, BM, EXTRA,
                GEGLU, HAS_BIAS, HAS_RESIDUAL, ACTIVATION, SCALED, INTEGER,
            )  # fmt: skip


def _check(x: Tensor, x2: Tensor | None, weight: Tensor, bias: Tensor | None, columns: int) -> None:
    inputs = [x] if x2 is None else [x, x2]
    for rows in (*inputs, weight):
        assert runs_kernels(rows) and rows.dim() == 2 and rows.stride(1) == 1 and rows.dtype == weight.dtype
    assert weight.shape[1] == sum(rows.shape[1] for rows in inputs) and len({rows.shape[0] for rows in inputs}) == 1
    assert bias is None or (bias.is_contiguous() and bias.numel() == weight.shape[0])
    if not serves_tma(columns, x, x2, weight):
        raise Unsupported("this kernel needs a Hopper GPU, and rows that start at multiples of 16 bytes")


def _row_tiles(x: Tensor, *block: int) -> Any:
    return TensorDescriptor(x, list(x.shape), [x.stride(0), 1], list(block))


def _launch(
    x: Tensor,
    x2: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    halves: int,
    activation: str,
    tile: TmaMatmulTile,
    scales: Scales | None,
) -> Tensor:
    (m, k), n, total = x.shape, weight.shape[0] // halves, weight.shape[1]
    _check(x, x2, weight, bias, n)
    y = empty_result(x, scales, m, n)
    if scales is not None:
        scales.check(m, halves * n)

    def weight_tiles(columns: int) -> Any:
        stride = weight.stride(0)
        return TensorDescriptor(weight, [halves, n, total], [n * stride, stride, 1], [halves, columns, tile.k])

    x_tiles = _row_tiles(x, tile.m, tile.k)
    extra = tile.extra or tile.n  # a stand-in if there is none
    tiles = triton.cdiv(m, tile.m) * triton.cdiv(n, tile.columns)
    launch_kernel(
        _tma_kernel, (min(tiles, tile.programs * multiprocessors(x)),),
        x_tiles, x_tiles if x2 is None else _row_tiles(x2, tile.m, tile.k), weight_tiles(tile.n), weight_tiles(extra),
        y if bias is None else bias, y if residual is None else residual, *scale_pointers(scales, y),
        _row_tiles(y, tile.m, tile.n), _row_tiles(y, tile.m, extra), m, n, k, total - k,
        0 if scales is None else scales.stride,
        BM=tile.m, BN=tile.n, EXTRA=tile.extra, BK=tile.k, GROUP=GROUP_M, TWO=x2 is not None, GEGLU=halves == 2,
        HAS_BIAS=bias is not None, HAS_RESIDUAL=residual is not None, ACTIVATION=ACTIVATIONS[activation],
        SCALED=scales is not None, INTEGER=is_integer(x), num_warps=tile.warps, num_stages=tile.stages,
        maxnreg=tile.registers,
    )  # fmt: skip
    return y


def launch_tma_matmul(
    x: Tensor,
    x2: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    tile: TmaMatmulTile,
    scales: Scales | None = None,
) -> Tensor:
    """act([x | x2] W^T + bias) + residual for x [M, K], x2 [M, K2], weight [N, K + K2]."""
    assert residual is None or (residual.is_contiguous() and residual.shape == (x.shape[0], weight.shape[0]))
    return _launch(x, x2, weight, bias, residual, 1, activation, tile, scales)


def launch_tma_geglu(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: TmaMatmulTile, scales: Scales | None = None
) -> Tensor:
    """(x V^T + c) * gelu(x G^T + d) for x [M, K], weight [V; G] of [2 I, K]."""
    return _launch(x, None, weight, bias, None, 2, "none", tile, scales)
