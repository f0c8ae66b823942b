"""Triton matrix products with their epilogues in registers: one for act(x W^T + b) + residual, one for GEGLU.

x [M, K] and weights [N, K] are row-major, and accumulation is in fp32. With HALF_SUMS, that within a tile of the depth
is in fp16 (see accumulation.py). `MATMUL_TILES` are the tile shapes worth timing. With `Scales`, operands have 8 bits,
and the sums are scaled before the epilogue; those of int8 are int32.
"""

# The parameters of Triton kernels have no Python types.
# pyright: reportMissingParameterType=false

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modules.stable_fast.kernels.accumulation import sums_in_half
from modules.stable_fast.kernels.activations import ACTIVATIONS, activate_in_kernel, gelu
from modules.stable_fast.kernels.devices import CardClass, card_class, multiplies_by_warp, runs_kernels
from modules.stable_fast.kernels.launch import launch_kernel
from modules.stable_fast.kernels.refusals import Unsupported, require_32_bit
from modules.stable_fast.kernels.scaled.kinds import reciprocal, rounded_in_kernel
from modules.stable_fast.kernels.scaled.scales import Scales, is_integer, scale_pointers, scaled_sums
from modules.stable_fast.kernels.triton_import import jit, tl, triton


class Tile(NamedTuple):
    """Rows, columns and depth of a tile, warps per program, and load pipeline stages."""

    m: int
    n: int
    k: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return f"triton_{self.m}x{self.n}x{self.k}"


MATMUL_TILES = (Tile(128, 128, 64, 8, 3), Tile(128, 64, 64, 4, 4), Tile(64, 64, 64, 4, 4), Tile(128, 256, 64, 8, 3))
# The last one takes twice the registers of the first.
GEGLU_TILES = (Tile(128, 64, 64, 8, 3), Tile(64, 64, 64, 4, 3), Tile(128, 128, 64, 8, 3))
# Row tiles per group. Programs of a group share rows of x and run one after another, so that the rows stay in the L2
# cache.
GROUP_M = 8


@jit
def tile_origin(program, M, N, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """Row and column of the tile numbered `program`. Numbering goes down the rows of a group before the next column."""
    columns = tl.cdiv(N, BN)
    group = program // (GROUP * columns)
    first = group * GROUP
    height = tl.minimum(tl.cdiv(M, BM) - first, GROUP)
    within = program % (GROUP * columns)
    return first + within % height, within // height


@jit
def add_product(acc, x, w, HALF_SUMS: tl.constexpr):
    """acc + x w, in the dtype of acc. With HALF_SUMS, the product is summed in fp16."""
    if HALF_SUMS:
        return acc + tl.dot(x, w, out_dtype=tl.float16).to(tl.float32)
    return tl.dot(x, w, acc, out_dtype=acc.dtype)


@jit
def _accumulate(
    acc, x_ptr, w_ptr, rows, columns, M, N, K, x_stride, w_stride,
    BK: tl.constexpr, EVEN_K: tl.constexpr, HALF_SUMS: tl.constexpr,
):  # fmt: skip
    """acc + x[rows, :K] w[columns, :K]^T. Rows and columns past the end are clamped; their results are never stored."""
    depth = tl.arange(0, BK)
    x_tile = x_ptr + tl.minimum(rows, M - 1)[:, None] * x_stride + depth[None, :]
    w_tile = w_ptr + tl.minimum(columns, N - 1)[None, :] * w_stride + depth[:, None]
    for k in range(0, K, BK):
        if EVEN_K:
            x = tl.load(x_tile)
            w = tl.load(w_tile)
        else:
            x = tl.load(x_tile, mask=(depth < K - k)[None, :], other=0.0)
            w = tl.load(w_tile, mask=(depth < K - k)[:, None], other=0.0)
        acc = add_product(acc, x, w, HALF_SUMS)
        x_tile += BK
        w_tile += BK
    return acc


@jit
def _matmul_kernel(
    x_ptr, x2_ptr, w_ptr, bias_ptr, residual_ptr, row_scale_ptr, column_scale_ptr, y_ptr, M, N, K, K2, x_stride,
    x2_stride, w_stride, row_scale_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, EVEN_K: tl.constexpr,
    TWO: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
    HALF_SUMS: tl.constexpr, SCALED: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = tile_origin(tl.program_id(0), M, N, BM, BN, GROUP)
    rows = tile_m * BM + tl.arange(0, BM)
    columns = tile_n * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.int32 if INTEGER else tl.float32)
    acc = _accumulate(acc, x_ptr, w_ptr, rows, columns, M, N, K, x_stride, w_stride, BK, EVEN_K, HALF_SUMS)
    if TWO:
        acc = _accumulate(acc, x2_ptr, w_ptr + K, rows, columns, M, N, K2, x2_stride, w_stride, BK, EVEN_K, HALF_SUMS)
    if SCALED:
        acc = scaled_sums(acc, row_scale_ptr, row_scale_stride, column_scale_ptr, rows, columns, M, N)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    acc = activate_in_kernel(acc, ACTIVATION)
    mask = (rows < M)[:, None] & (columns < N)[None, :]
    offset = rows.to(tl.int64)[:, None] * N + columns[None, :]
    if HAS_RESIDUAL:
        acc += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, acc.to(y_ptr.dtype.element_ty), mask=mask)


def _check_rows(x: Tensor, k: int) -> None:
    assert x.dim() == 2 and x.stride(1) == 1 and x.shape[1] == k, f"x must be [M, {k}], rows contiguous"


def empty_result(x: Tensor, scales: Scales | None, rows: int, columns: int) -> Tensor:
    """For the product of `x`: in its dtype, or in that which the scales ask for."""
    if scales is None:
        return x.new_empty((rows, columns))
    assert x.dtype.itemsize == 1 and (scales.dtype.itemsize > 1 or scales.dtype == x.dtype)
    return x.new_empty((rows, columns), dtype=scales.dtype)


def launch_matmul(
    x: Tensor,
    x2: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    tile: Tile,
    scales: Scales | None = None,
) -> Tensor:
    """act([x | x2] W^T + bias) + residual for x [M, K], x2 [M, K2], weight [N, K + K2]."""
    m, k = x.shape
    n, k2 = weight.shape[0], weight.shape[1] - k
    assert runs_kernels(x) and weight.stride(1) == 1 and weight.dtype == x.dtype
    _check_rows(x, k)
    require_32_bit(x, weight)
    if x2 is not None:
        _check_rows(x2, k2)
    assert (x2 is None) == (k2 == 0)
    if tile == MATMUL_TILES[-1] and card_class(x) is CardClass.TCGEN05:
        raise Unsupported(f"the epilogue of {tile.name} takes more registers than a thread has there")
    assert residual is None or (residual.is_contiguous() and residual.shape == (m, n))
    assert bias is None or (bias.is_contiguous() and bias.numel() == n)
    y = empty_result(x, scales, m, n)
    if scales is not None:
        scales.check(m, n)
    second = x if x2 is None else x2
    launch_kernel(
        _matmul_kernel, (triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n),),
        x, second, weight, y if bias is None else bias, y if residual is None else residual,
        *scale_pointers(scales, y)[:2], y,
        m, n, k, k2, x.stride(0), second.stride(0), weight.stride(0), 0 if scales is None else scales.stride,
        BM=tile.m, BN=tile.n, BK=tile.k, GROUP=GROUP_M, EVEN_K=k % tile.k == 0 and k2 % tile.k == 0,
        TWO=x2 is not None, HAS_BIAS=bias is not None, HAS_RESIDUAL=residual is not None,
        ACTIVATION=ACTIVATIONS[activation], HALF_SUMS=sums_in_half(x), SCALED=scales is not None,
        INTEGER=is_integer(x), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y


@jit
def _geglu_matmul_kernel(
    x_ptr, w_ptr, bias_ptr, row_scale_ptr, column_scale_ptr, result_scale_ptr, y_ptr, M, I, K, x_stride,  # noqa: E741
    w_stride, row_scale_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, EVEN_K: tl.constexpr,
    HAS_BIAS: tl.constexpr, HALF_SUMS: tl.constexpr, SCALED: tl.constexpr, INTEGER: tl.constexpr, EIGHT: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = tile_origin(tl.program_id(0), M, I, BM, BN, GROUP)
    rows = tile_m * BM + tl.arange(0, BM)
    columns = tile_n * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    x_tile = x_ptr + tl.minimum(rows, M - 1)[:, None] * x_stride + depth[None, :]
    value_tile = w_ptr + tl.minimum(columns, I - 1)[None, :] * w_stride + depth[:, None]
    gate_tile = value_tile + I * w_stride
    value = tl.zeros((BM, BN), dtype=tl.int32 if INTEGER else tl.float32)
    gate = tl.zeros((BM, BN), dtype=tl.int32 if INTEGER else tl.float32)
    for k in range(0, K, BK):
        if EVEN_K:
            x = tl.load(x_tile)
            value_weight = tl.load(value_tile)
            gate_weight = tl.load(gate_tile)
        else:
            x = tl.load(x_tile, mask=(depth < K - k)[None, :], other=0.0)
            value_weight = tl.load(value_tile, mask=(depth < K - k)[:, None], other=0.0)
            gate_weight = tl.load(gate_tile, mask=(depth < K - k)[:, None], other=0.0)
        value = add_product(value, x, value_weight, HALF_SUMS)
        gate = add_product(gate, x, gate_weight, HALF_SUMS)
        x_tile += BK
        value_tile += BK
        gate_tile += BK
    if SCALED:
        value = scaled_sums(value, row_scale_ptr, row_scale_stride, column_scale_ptr, rows, columns, M, I)
        gate = scaled_sums(gate, row_scale_ptr, row_scale_stride, column_scale_ptr + I, rows, columns, M, I)
    if HAS_BIAS:
        value += tl.load(bias_ptr + columns, mask=columns < I, other=0.0).to(tl.float32)[None, :]
        gate += tl.load(bias_ptr + I + columns, mask=columns < I, other=0.0).to(tl.float32)[None, :]
    y = value * gelu(gate)
    if EIGHT:
        y = rounded_in_kernel(y * reciprocal(tl.load(result_scale_ptr)), INTEGER, WITHIN=False)
    mask = (rows < M)[:, None] & (columns < I)[None, :]
    tl.store(y_ptr + rows.to(tl.int64)[:, None] * I + columns[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


def launch_geglu_matmul(
    x: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile, scales: Scales | None = None
) -> Tensor:
    """(x V^T + c) * gelu(x G^T + d) for x [M, K], weight [V; G] of [2 I, K]."""
    m, k = x.shape
    inner = weight.shape[0] // 2
    if tile == GEGLU_TILES[-1] and multiplies_by_warp(x):
        raise Unsupported(f"both accumulators of {tile.name} take more registers than one warp has")
    assert runs_kernels(x) and weight.stride(1) == 1 and weight.dtype == x.dtype
    _check_rows(x, weight.shape[1])
    require_32_bit(x, weight)
    assert bias is None or (bias.is_contiguous() and bias.numel() == 2 * inner)
    y = empty_result(x, scales, m, inner)
    if scales is not None:
        scales.check(m, 2 * inner)
    launch_kernel(
        _geglu_matmul_kernel, (triton.cdiv(m, tile.m) * triton.cdiv(inner, tile.n),),
        x, weight, y if bias is None else bias, *scale_pointers(scales, y), y, m, inner, k, x.stride(0),
        weight.stride(0), 0 if scales is None else scales.stride,
        BM=tile.m, BN=tile.n, BK=tile.k, GROUP=GROUP_M, EVEN_K=k % tile.k == 0, HAS_BIAS=bias is not None,
        HALF_SUMS=sums_in_half(x), SCALED=scales is not None, INTEGER=is_integer(x), EIGHT=y.dtype.itemsize == 1,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y
